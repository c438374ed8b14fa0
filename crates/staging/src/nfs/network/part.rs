//! The bytes of one part on their way into its file.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nfs_rs::WriteOutcome;
use tokio::time::{Instant, sleep_until};

use super::session::{Handle, Session};
use super::trouble::Trouble;
use crate::PartBody;

/// How many requests of one part are under way.
const UNDER_WAY: usize = 8;
/// How many bytes may wait for their commit. They are kept to be written again, should the server forget them.
const WINDOW: usize = 32 << 20;
type Pieces = Box<dyn futures::Stream<Item = Bytes> + Send + Unpin>;

/// A part that is being written.
pub(super) struct Writing {
    pieces: Pieces,
    ended: bool,
    /// Where the next piece belongs.
    next: u64,
    /// What is not committed, in requests.
    kept: Vec<Request>,
    bytes_kept: usize,
    /// How many requests were answered so far.
    answered: u64,
    lull: Duration,
}

/// Bytes, where they belong, and what the server said to them: nothing yet, or that they are written.
struct Request {
    offset: u64,
    bytes: Bytes,
    receipts: Vec<WriteOutcome>,
}

impl Writing {
    /// The bytes of `body`, at `offset`. Where the next piece does not come for as long as `lull`, what was written is committed.
    pub(super) fn new(offset: u64, body: PartBody, lull: Duration) -> Self {
        Self {
            pieces: Box::new(body.into_stream()),
            ended: false,
            next: offset,
            kept: Vec::new(),
            bytes_kept: 0,
            answered: 0,
            lull,
        }
    }

    /// Where the bytes end that came so far.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// How many requests were answered so far: more mean progress.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Writes and commits the next bytes; says whether there may be more.
    ///
    /// What was written before a connection was lost needs no second writing, unless the server was restarted meanwhile. The
    /// commit tells, by the server's verifier: then all that was not committed is written once more, by the next call. RFC 1813,
    /// section 3.3.21; RFC 8881, section 18.3.
    pub(super) async fn advance(&mut self, session: &Session, file: &Handle) -> Result<bool, Trouble> {
        self.write(session, file).await?;
        if !self.kept.is_empty() {
            let receipts: Vec<_> = self.kept.iter().flat_map(|request| request.receipts.clone()).collect();
            let committed = session.commit(file, &receipts).await;
            if matches!(committed, Err(Trouble::Forgot)) {
                self.kept.iter_mut().for_each(|request| request.receipts.clear());
            }
            committed?;
        }
        self.kept.clear();
        self.bytes_kept = 0;
        Ok(!self.ended)
    }

    /// Writes until the window is full, the pieces end, or there is a lull. Where it fails, it first waits for what is under way.
    async fn write(&mut self, session: &Session, file: &Handle) -> Result<(), Trouble> {
        let size = session.write_size as usize;
        let ask = |index: usize, offset, bytes| async move { (index, session.write(file, offset, bytes).await) };
        let mut under_way = FuturesUnordered::new();
        let (mut asked, mut failed, mut lull) = (0, None, None);
        loop {
            while failed.is_none() && under_way.len() < UNDER_WAY && asked < self.kept.len() {
                let request = &self.kept[asked];
                if request.receipts.is_empty() {
                    under_way.push(ask(asked, request.offset, request.bytes.clone()));
                }
                asked += 1;
            }
            let has_room = self.bytes_kept < WINDOW && under_way.len() < UNDER_WAY;
            let wants_more = has_room && !self.ended && failed.is_none();
            if !wants_more && under_way.is_empty() {
                return failed.map_or(Ok(()), Err);
            }
            if !under_way.is_empty() || self.kept.is_empty() {
                lull = None;
            } else if lull.is_none() {
                lull = Some(Instant::now() + self.lull);
            }
            tokio::select! {
                biased;
                Some((index, answer)) = under_way.next() => match answer {
                    Ok(receipts) => {
                        self.kept[index].receipts = receipts;
                        self.answered += 1;
                    }
                    Err(trouble) => failed = failed.or(Some(trouble)),
                },
                piece = self.pieces.next(), if wants_more => self.keep(piece, size),
                () = sleep_until(lull.unwrap_or_else(Instant::now)), if lull.is_some() => return Ok(()),
            }
        }
    }

    /// Takes in a piece, cut to the size of a request.
    fn keep(&mut self, piece: Option<Bytes>, size: usize) {
        let Some(mut piece) = piece else {
            self.ended = true;
            return;
        };
        self.bytes_kept += piece.len();
        while !piece.is_empty() {
            let bytes = piece.split_to(piece.len().min(size));
            let offset = self.next;
            self.next += bytes.len() as u64;
            self.kept.push(Request {
                offset,
                bytes,
                receipts: Vec::new(),
            });
        }
    }
}
