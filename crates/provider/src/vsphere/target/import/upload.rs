//! One upload: a request whose body comes out of a short channel.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Body, Frame, SizeHint};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vmferry_block::Buf;

use super::Begun;
use crate::Kind;
use crate::vsphere::client::Trouble;
use crate::vsphere::lease::{Checksum, ManifestEntry, no_answer};

/// Buffers that wait for the connection: one in the making of the next is enough.
const QUEUE: usize = 1;

/// How long not one buffer may go out before the host counts as unreachable.
const STALL: Duration = Duration::from_mins(2);

/// How long the host may take to write what it was sent.
const ANSWER: Duration = Duration::from_mins(10);

/// The longest part of an answer that is shown.
const SHOWN: usize = 300;

const STREAM: &str = "application/x-vnd.vmware-streamVmdk";

/// An upload under way.
pub(super) struct Upload {
    begun: Begun,
    pieces: mpsc::Sender<Bytes>,
    answer: JoinHandle<Result<(), Trouble>>,
    /// Not there while a piece is being hashed.
    hash: Option<digest::Context>,
    sent: u64,
    len: u64,
}

impl Upload {
    /// Begins to send `len` bytes.
    pub fn start(begun: Begun, len: u64) -> Result<Self, Trouble> {
        let request = begun.lease.request(Method::POST, &begun.device)?;
        let host = begun.lease.host(&begun.device);
        let (pieces, queue) = mpsc::channel(QUEUE);
        let body = reqwest::Body::wrap(Pieces { queue, left: len });
        let request = request.header(CONTENT_TYPE, STREAM).body(body);
        let algorithm = if begun.sha256 {
            &digest::SHA256
        } else {
            &digest::SHA1_FOR_LEGACY_USE_ONLY
        };
        Ok(Self {
            pieces,
            answer: tokio::spawn(async move { answered(request, &host).await }),
            hash: Some(digest::Context::new(algorithm)),
            begun,
            sent: 0,
            len,
        })
    }

    /// Sends the next bytes, as fast as the host takes them.
    pub async fn send(&mut self, buf: Buf) -> Result<(), Trouble> {
        let piece = Bytes::from_owner(buf);
        let count = piece.len() as u64;
        self.hash(&piece).await?;
        let handing = timeout(STALL, self.pieces.send(piece));
        let handed = tokio::select! {
            handed = handing => handed,
            lost = self.begun.lease.lost() => return Err(lost),
        };
        match handed {
            Ok(Ok(())) => {}
            // The request ended before its body did.
            Ok(Err(_)) => return Err(self.early().await),
            Err(_) => return Err(stalled("has taken nothing", STALL)),
        }
        self.sent += count;
        let percent = u32::try_from(self.sent.saturating_mul(99) / self.len.max(1)).unwrap_or(0);
        self.begun.lease.set_progress(percent);
        Ok(())
    }

    /// Hashing takes a moment that others shall not wait for.
    async fn hash(&mut self, piece: &Bytes) -> Result<(), Trouble> {
        let broken = || Trouble::new(Kind::Bug, "the hash of the upload is lost");
        let mut hash = self.hash.take().ok_or_else(broken)?;
        let piece = piece.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            hash.update(&piece);
            hash
        });
        self.hash = Some(hashed.await.map_err(|_| broken())?);
        Ok(())
    }

    /// Ends the upload: waits until the host has it all, compares checksums, and completes the lease.
    pub async fn finish(mut self) -> Result<(), Trouble> {
        // The body ends where it was said to end.
        drop(std::mem::replace(&mut self.pieces, mpsc::channel(1).0));
        let outcome = tokio::select! {
            outcome = timeout(ANSWER, &mut self.answer) => match outcome {
                Ok(ended) => ended.unwrap_or_else(|_| Err(Trouble::new(Kind::Bug, "the upload ended by itself"))),
                Err(_) => Err(stalled("has not answered", ANSWER)),
            },
            lost = self.begun.lease.lost() => Err(lost),
        };
        let outcome = match outcome {
            Ok(()) => self.verify().await,
            failed => failed,
        };
        if let Err(trouble) = outcome {
            return Err(self.call_off(trouble).await);
        }
        let Self { begun, .. } = self;
        begun.lease.set_progress(100);
        begun.lease.complete().await
    }

    /// Compares what the host took in with what was sent.
    async fn verify(&mut self) -> Result<(), Trouble> {
        let Some(hash) = self.hash.take() else {
            return Err(Trouble::new(Kind::Bug, "the hash of the upload is lost"));
        };
        let ours = hex(hash.finish().as_ref());
        let Some(manifest) = self.begun.lease.manifest().await? else {
            // A server without a manifest has the length to go by, and the disk's own checksums.
            return Ok(());
        };
        let key = &self.begun.device.key;
        let Some(entry) = manifest.iter().find(|entry| entry.key == *key) else {
            return Err(Trouble::new(
                Kind::Failed,
                "the server's manifest does not have the disk",
            ));
        };
        compare(entry, &ours, self.begun.sha256, self.len)
    }

    /// Calls the import off and waits until it is, so that nothing is left; gives the trouble that it ended with, or what the lease
    /// itself says of it.
    pub async fn call_off(self, trouble: Trouble) -> Trouble {
        let Self { begun, answer, .. } = self;
        answer.abort();
        let trouble = match begun.lease.reason().await {
            Some(why) => why,
            None => trouble,
        };
        if let Err(also) = begun.lease.abort().await {
            tracing::warn!(
                detail = also.detail,
                "could not call off an import; it ends by itself within minutes"
            );
        }
        trouble
    }

    /// Why the request ended before its body did.
    async fn early(&mut self) -> Trouble {
        match timeout(ANSWER, &mut self.answer).await {
            Ok(Ok(Err(trouble))) => trouble,
            Ok(_) => Trouble::new(Kind::Failed, "the host answered before it had the whole disk"),
            Err(_) => stalled("has not answered", ANSWER),
        }
    }
}

async fn answered(request: reqwest::RequestBuilder, host: &str) -> Result<(), Trouble> {
    let answer = request.send().await;
    let answer = answer.map_err(|error| no_answer(host, error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let mut text = answer.text().now_or_never().and_then(Result::ok).unwrap_or_default();
    text.retain(|character| !character.is_control());
    let text: String = text.chars().take(SHOWN).collect();
    // Whatever it is: the URL is the permission, and that goes with its lease. Another lease can be had.
    Err(Trouble::new(
        Kind::Failed,
        format!("host {host} answered {status} {text}").trim_end().to_owned(),
    ))
}

fn compare(entry: &ManifestEntry, ours: &str, sha256: bool, len: u64) -> Result<(), Trouble> {
    let theirs = match &entry.checksum {
        Some(Checksum::Sha256(theirs)) if sha256 => theirs,
        Some(Checksum::Sha1(theirs)) if !sha256 => theirs,
        // It was asked for one kind and gave the other, or none.
        _ => {
            return Err(Trouble::new(
                Kind::Failed,
                "the server's manifest has no checksum of the kind that was asked for",
            ));
        }
    };
    if theirs != ours {
        return Err(Trouble::new(
            Kind::Failed,
            format!("what the host took in has the checksum {theirs}, what was sent {ours}"),
        ));
    }
    match entry.size {
        Some(size) if size != len => Err(Trouble::new(
            Kind::Failed,
            format!("the host took in {size} bytes of {len}"),
        )),
        _ => Ok(()),
    }
}

fn stalled(what: &str, limit: Duration) -> Trouble {
    Trouble::new(Kind::Unreachable, format!("the host {what} for {} s", limit.as_secs()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A body of known length.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.queue.poll_recv(context).map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Some(Ok(Frame::data(piece)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
