//! The bytes of a part on their way to a store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use vmferry_block::Buf;

/// The bytes of a part: consecutive pieces.
///
/// Most parts are held in memory until they arrived, so that they can be sent again. A part that is larger than what may be
/// held flows past: it can be sent only once, and whoever makes it makes it again.
#[derive(Debug)]
pub struct PartBody {
    len: u64,
    pieces: Pieces,
}

enum Pieces {
    Held(Arc<[Buf]>),
    Flowing(mpsc::Receiver<Buf>),
}

impl PartBody {
    /// A part that is held in memory.
    pub fn held(pieces: impl Into<Arc<[Buf]>>) -> Self {
        let pieces = pieces.into();
        Self {
            len: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces: Pieces::Held(pieces),
        }
    }

    /// A part of `len` bytes whose pieces come out of a channel. One that closes early makes the part fail.
    pub fn flowing(len: u64, pieces: mpsc::Receiver<Buf>) -> Self {
        Self {
            len,
            pieces: Pieces::Flowing(pieces),
        }
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a part is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The same bytes once more, where they are held.
    pub fn again(&self) -> Option<Self> {
        match &self.pieces {
            Pieces::Held(pieces) => Some(Self {
                len: self.len,
                pieces: Pieces::Held(Arc::clone(pieces)),
            }),
            Pieces::Flowing(_) => None,
        }
    }

    /// The channel out of which the pieces come, or the part itself where it is held.
    pub(crate) fn into_flowing(self) -> Result<mpsc::Receiver<Buf>, Self> {
        match self.pieces {
            Pieces::Flowing(pieces) => Ok(pieces),
            Pieces::Held(_) => Err(self),
        }
    }

    /// The pieces, without a copy. Aligned for direct I/O where the buffers were; a buffer goes back to its pool when its
    /// piece is dropped, or with the last of a held part.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send + Sync + Unpin + 'static {
        match self.pieces {
            Pieces::Held(pieces) => {
                let count = pieces.len();
                let piece = move |index| Bytes::from_owner(Piece(Arc::clone(&pieces), index));
                stream::iter((0..count).map(piece)).left_stream()
            }
            Pieces::Flowing(mut pieces) => {
                stream::poll_fn(move |cx| pieces.poll_recv(cx).map(|next| next.map(Bytes::from_owner))).right_stream()
            }
        }
    }
}

/// One piece of a part that is held.
struct Piece(Arc<[Buf]>, usize);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1]
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held(_) => "held",
            Self::Flowing(_) => "flowing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn held_pieces_come_again_and_flowing_ones_once() {
        let held = PartBody::held([Buf::copy_of(b"one"), Buf::copy_of(b"two!")]);
        assert_eq!(held.len(), 7);
        for body in [held.again().unwrap(), held] {
            assert_eq!(body.into_stream().collect::<Vec<_>>().await.concat(), b"onetwo!");
        }
        let (send, pieces) = mpsc::channel(2);
        send.send(Buf::copy_of(b"past")).await.unwrap();
        drop(send);
        let flowing = PartBody::flowing(4, pieces);
        assert!(flowing.again().is_none());
        assert_eq!(flowing.into_stream().collect::<Vec<_>>().await.concat(), b"past");
    }
}
