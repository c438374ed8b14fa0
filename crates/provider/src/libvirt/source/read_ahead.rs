//! Reading a file far away in large pieces, ahead of whoever reads it in order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use vmferry_block::{Buf, ReadAt};

/// Size of a piece in bytes: each costs a round trip and the setup of a stream.
const PIECE: u64 = 4 << 20;

/// How many pieces are kept.
const KEPT: usize = 8;

/// How many pieces are fetched ahead.
const AHEAD: u64 = 2;

/// A piece that is there, on its way, or to be tried again.
type Slot = Arc<OnceCell<Buf>>;

/// A file that is read in pieces.
pub(super) struct ReadAhead {
    file: Arc<dyn ReadAt>,
    /// The pieces that were asked for last, by number.
    kept: Mutex<VecDeque<(u64, Slot)>>,
}

impl ReadAhead {
    pub fn new(file: Arc<dyn ReadAt>) -> Self {
        let kept = Mutex::default();
        Self { file, kept }
    }

    /// The slot of a piece, and whether it was there already.
    fn slot(&self, number: u64) -> (Slot, bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| *known == number)
            && let Some(found) = kept.remove(at)
        {
            let slot = Arc::clone(&found.1);
            kept.push_back(found);
            return (slot, true);
        }
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        let slot = Slot::default();
        kept.push_back((number, Arc::clone(&slot)));
        (slot, false)
    }

    fn is_kept(&self, number: u64) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().any(|(known, _)| *known == number)
    }

    /// Starts the pieces after `number`, where the one before it was read, too.
    fn prefetch(&self, number: u64) {
        let in_order = number == 0 || self.is_kept(number - 1);
        let last = self.file.size().saturating_sub(1) / PIECE;
        for next in number + 1..=(number + AHEAD).min(last) {
            if !in_order || self.is_kept(next) {
                continue;
            }
            let (slot, _) = self.slot(next);
            let file = Arc::clone(&self.file);
            // A failure is seen by whoever asks for the piece.
            tokio::spawn(async move { slot.get_or_try_init(|| fetch(&*file, next)).await.map(|_| ()) });
        }
    }
}

async fn fetch(file: &dyn ReadAt, number: u64) -> io::Result<Buf> {
    let start = number * PIECE;
    let len = PIECE.min(file.size().saturating_sub(start));
    file.read_at(start, Buf::alone(len as usize)).await
}

#[async_trait]
impl ReadAt for ReadAhead {
    fn size(&self) -> u64 {
        self.file.size()
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        let len = buf.len() as u64;
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= self.size())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut at = offset;
        while at < end {
            let number = at / PIECE;
            let (slot, was_there) = self.slot(number);
            if !was_there {
                self.prefetch(number);
            }
            let piece = slot.get_or_try_init(|| fetch(&*self.file, number)).await?;
            let from = (at - number * PIECE) as usize;
            let count = ((end - at) as usize).min(piece.len() - from);
            let into = (at - offset) as usize;
            buf[into..into + count].copy_from_slice(&piece[from..from + count]);
            at += count as u64;
        }
        Ok(buf)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counted(AtomicUsize);

    #[async_trait]
    impl ReadAt for Counted {
        fn size(&self) -> u64 {
            3 * PIECE + 17
        }

        async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
            self.0.fetch_add(1, Ordering::Relaxed);
            for (at, byte) in buf.iter_mut().enumerate() {
                *byte = ((offset + at as u64) / 4096) as u8;
            }
            Ok(buf)
        }
    }

    #[tokio::test]
    async fn gives_the_same_bytes_in_few_pieces() {
        let file = Arc::new(Counted(AtomicUsize::new(0)));
        let ahead = ReadAhead::new(Arc::clone(&file) as Arc<dyn ReadAt>);
        let mut at = 0;
        while at < ahead.size() {
            let len = (ahead.size() - at).min(300_001);
            let buf = ahead.read_at(at, Buf::alone(len as usize)).await.unwrap();
            assert!(
                buf.iter()
                    .enumerate()
                    .all(|(i, byte)| *byte == ((at + i as u64) / 4096) as u8),
                "at {at}"
            );
            at += len;
        }
        assert_eq!(file.0.load(Ordering::Relaxed), 4);
        assert!(ahead.read_at(ahead.size(), Buf::alone(1)).await.is_err());
    }
}
