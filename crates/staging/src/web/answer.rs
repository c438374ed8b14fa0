//! An answer, and its body.

use std::ops::Range;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Response, StatusCode};
use vmferry_block::Buf;

use super::trouble::Trouble;
use crate::Kind;

/// An answer whose head came and whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    silence: Duration,
}

impl Answer {
    pub(super) fn new(response: Response, silence: Duration) -> Self {
        Self { response, silence }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header as text; `None` where it is absent or no text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The body as text, of at most `most` bytes: the rest of a longer one is left out.
    pub(crate) async fn text(mut self, most: usize) -> Result<String, Trouble> {
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let Some(chunk) = self.chunk().await? else { break };
            bytes.extend_from_slice(&chunk[..chunk.len().min(most - bytes.len())]);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fills `bufs` with the body from byte `from` of all of them on; says how far they are filled now, and what ended it early. A body that
    /// is longer than they are is [`Unfit`](Kind::Unfit).
    pub(crate) async fn fill(self, bufs: &mut [Buf], from: usize) -> (usize, Result<(), Trouble>) {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        self.fill_range(bufs, from..all).await
    }

    /// [`fill`](Self::fill) for an answer that is good for a range of `bufs` only.
    pub(crate) async fn fill_range(mut self, bufs: &mut [Buf], range: Range<usize>) -> (usize, Result<(), Trouble>) {
        let (from, all) = (range.start, range.end);
        let mut place = Place::new(bufs, from);
        let mut at = from;
        loop {
            let mut chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if at == all => return (at, Ok(())),
                Ok(None) => {
                    let detail = format!("the answer ended {} bytes early", all - at);
                    return (at, Err(Trouble::new(Kind::Unreachable, detail)));
                }
                Err(trouble) => return (at, Err(trouble)),
            };
            if chunk.len() > all - at {
                let detail = "the server sent more than it was asked for";
                return (at, Err(Trouble::new(Kind::Unfit, detail)));
            }
            at += chunk.len();
            while !chunk.is_empty() {
                let n = place.take(bufs, &chunk);
                let _ = chunk.split_to(n);
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Trouble> {
        match tokio::time::timeout(self.silence, self.response.chunk()).await {
            Ok(chunk) => Ok(chunk?),
            Err(_) => Err(Trouble::stalled(self.silence)),
        }
    }
}

/// Where the next byte goes.
struct Place {
    buf: usize,
    at: usize,
}

impl Place {
    fn new(bufs: &[Buf], from: usize) -> Self {
        let mut place = Self { buf: 0, at: from };
        while let Some(buf) = bufs.get(place.buf).filter(|buf| place.at >= buf.len()) {
            place.at -= buf.len();
            place.buf += 1;
        }
        place
    }

    /// Copies the front of `bytes`; says how many. There is room for all of them, in one buffer or more.
    fn take(&mut self, bufs: &mut [Buf], bytes: &[u8]) -> usize {
        let Some(buf) = bufs.get_mut(self.buf) else {
            return bytes.len();
        };
        let n = bytes.len().min(buf.len() - self.at);
        buf[self.at..self.at + n].copy_from_slice(&bytes[..n]);
        self.at += n;
        if self.at == buf.len() {
            (self.buf, self.at) = (self.buf + 1, 0);
        }
        n
    }
}
