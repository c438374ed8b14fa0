//! A part as the body of a request, and the look at whether it moves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use crate::PartBody;

/// How often it is looked whether anything moved.
const LOOK: Duration = Duration::from_secs(1);

/// Whether the body of a request moves.
#[derive(Debug, Clone, Default)]
pub(super) struct Life(Arc<State>);

#[derive(Debug, Default)]
struct State {
    pieces: AtomicU64,
    /// The last byte was handed over, or there was none.
    is_sent: AtomicBool,
    has_body: AtomicBool,
}

impl Life {
    /// Waits until nothing moved for `silence`, or, once the last byte was handed over, for `patience`; says which it was.
    pub(super) async fn until_silent(&self, silence: Duration, patience: Duration) -> Duration {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(LOOK.min(silence / 4)).await;
            let now = self.0.pieces.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let is_waiting = self.0.is_sent.load(Ordering::Relaxed) || !self.0.has_body.load(Ordering::Relaxed);
            let limit = if is_waiting { patience } else { silence };
            if since.elapsed() >= limit {
                return limit;
            }
        }
    }
}

/// The part came to an end before its length.
#[derive(Debug, Error)]
#[error("the part ended {0} bytes early")]
struct Short(u64);

/// A body of known length. Its pieces are not copied.
pub(super) fn watched(part: PartBody, life: Life) -> reqwest::Body {
    life.0.has_body.store(true, Ordering::Relaxed);
    let left = part.len();
    life.0.is_sent.store(left == 0, Ordering::Relaxed);
    reqwest::Body::wrap(Watched {
        pieces: Box::pin(part.into_stream()),
        left,
        life,
    })
}

struct Watched {
    pieces: Pin<Box<dyn Stream<Item = Bytes> + Send + Sync>>,
    left: u64,
    life: Life,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.pieces.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.life.0.pieces.fetch_add(1, Ordering::Relaxed);
                if self.left == 0 {
                    self.life.0.is_sent.store(true, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(None) if self.left > 0 => Poll::Ready(Some(Err(Short(self.left).into()))),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
