//! Aligned buffers out of a pool with a fixed budget of bytes.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Alignment of a buffer's first byte: what direct I/O asks for on every disk in use.
pub const ALIGN: usize = 4096;

/// A pool of buffers of one size. Taking one waits until one is free: that is the pipeline's back-pressure.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<Memory>>,
}

/// Memory with an aligned start. Plain safe memory with room to slide the start to the next aligned address; it never
/// grows, so it never moves.
struct Memory {
    bytes: Box<[u8]>,
    start: usize,
}

impl Memory {
    fn new(size: usize) -> Self {
        let bytes = vec![0u8; size + ALIGN].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start }
    }
}

impl Pool {
    /// A pool of `count` buffers of `size` bytes each, allocated as they are first needed.
    pub fn new(size: usize, count: usize) -> Self {
        let permits = Arc::new(Semaphore::new(count));
        Self {
            shared: Arc::new(Shared {
                size,
                permits,
                free: Mutex::default(),
            }),
        }
    }

    /// Size of each buffer in bytes.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Waits for a free buffer and sets its length. What it holds is left over from its last use.
    ///
    /// `len` is cut at the pool's buffer size.
    pub async fn take(&self, len: usize) -> Buf {
        // The semaphore is never closed; were it, a buffer without permit would still be correct.
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await.ok();
        let reused = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = reused.unwrap_or_else(|| Memory::new(self.shared.size));
        let len = len.min(self.shared.size);
        Buf {
            len,
            view: 0..len,
            memory: Some(memory),
            home: Home::Pool(Arc::clone(&self.shared), permit),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.shared.size)
            .field("free", &self.shared.permits.available_permits())
            .finish()
    }
}

/// What was in view of a [`Buf`].
#[derive(Debug)]
#[must_use = "without it the rest of the buffer cannot be shown again"]
pub struct View(Range<usize>);

/// A buffer whose first byte is aligned to [`ALIGN`]. It goes back to its pool when it is dropped.
pub struct Buf {
    len: usize,
    /// The part of `0..len` that is in view.
    view: Range<usize>,
    /// Present until the drop.
    memory: Option<Memory>,
    home: Home,
}

/// Where the memory of a buffer goes when the buffer is dropped.
enum Home {
    /// Nowhere: it is given back to the system.
    None,
    /// To the pool that it is of.
    Pool(
        Arc<Shared>,
        #[expect(dead_code, reason = "held for as long as the buffer")] Option<OwnedSemaphorePermit>,
    ),
    /// To whoever lent it.
    Lender(Arc<Mutex<Option<Memory>>>),
}

/// What stays of a buffer that is [lent](Buf::lend): the right to have it back.
#[must_use = "without it the buffer is lost"]
pub struct Lender {
    buf: Buf,
    returned: Arc<Mutex<Option<Memory>>>,
}

impl Lender {
    /// The buffer as it was lent, with what was written to it; none while the one that was given away is still in use.
    pub fn back(mut self) -> Option<Buf> {
        let memory = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.buf.memory = Some(memory?);
        Some(self.buf)
    }
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lender({} bytes)", self.buf.view.len())
    }
}

impl Buf {
    /// A buffer that belongs to no pool, filled with zeros. For small pieces and tests.
    pub fn alone(len: usize) -> Self {
        Self {
            len,
            view: 0..len,
            memory: Some(Memory::new(len)),
            home: Home::None,
        }
    }

    /// A buffer that belongs to no pool with a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::alone(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// The most bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.bytes.len() - ALIGN)
    }

    /// Sets the length, cut at the capacity, and shows all of it. Bytes that come into view are left over from earlier use.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
        self.view = 0..self.len;
    }

    /// Shows only a part of what is in view, so that others fill just that part, in place. The range is cut at what is in
    /// view. Gives the view from before, for [`restore`](Self::restore).
    pub fn narrow(&mut self, range: Range<usize>) -> View {
        let start = self.view.start.saturating_add(range.start).min(self.view.end);
        let end = self.view.start.saturating_add(range.end).clamp(start, self.view.end);
        View(mem::replace(&mut self.view, start..end))
    }

    /// Shows again what was in view before [`narrow`](Self::narrow).
    pub fn restore(&mut self, view: View) {
        self.view = view.0;
    }

    /// Lends the buffer to a call that may fail and lose it: the call gets one over the same memory, and when that is dropped
    /// the lender has it [back](Lender::back).
    pub fn lend(mut self) -> (Lender, Self) {
        let returned = Arc::new(Mutex::new(None));
        let lent = Self {
            len: self.len,
            view: self.view.clone(),
            memory: self.memory.take(),
            home: Home::Lender(Arc::clone(&returned)),
        };
        (Lender { buf: self, returned }, lent)
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Some(memory) => &memory.bytes[memory.start..][self.view.clone()],
            None => &[],
        }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(memory) => &mut memory.bytes[memory.start..][self.view.clone()],
            None => &mut [],
        }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.view.len())
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        // The memory goes back before the permit, which is dropped after this: whoever gets the permit finds it.
        match &self.home {
            Home::None => {}
            Home::Pool(shared, _) => shared.free.lock().unwrap_or_else(PoisonError::into_inner).push(memory),
            Home::Lender(returned) => *returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pool_never_has_more_than_its_count() {
        let pool = Pool::new(8192, 2);
        let (first, second) = (pool.take(8192).await, pool.take(100).await);
        assert_eq!((first.len(), second.len()), (8192, 100));
        assert_eq!(first.as_ptr().align_offset(ALIGN), 0);
        let third = tokio::time::timeout(std::time::Duration::from_millis(20), pool.take(1)).await;
        assert!(third.is_err(), "a third buffer came out of a pool of two");
        drop(first);
        assert_eq!(pool.take(9000).await.len(), 8192);
    }

    #[tokio::test]
    async fn a_buffer_that_was_lent_comes_back_as_it_was() {
        let pool = Pool::new(8192, 1);
        let mut buf = pool.take(10).await;
        buf.copy_from_slice(b"0123456789");
        let whole = buf.narrow(2..4);
        let (lender, mut lent) = buf.lend();
        lent.copy_from_slice(b"ab");
        drop(lent);
        let mut buf = lender.back().unwrap();
        assert_eq!(&*buf, b"ab");
        buf.restore(whole);
        assert_eq!(&*buf, b"01ab456789");
        let (lender, lent) = buf.lend();
        assert!(lender.back().is_none(), "it is still in use");
        drop(lent);
        assert_eq!(pool.take(8192).await.len(), 8192, "the place in the pool is free");
    }

    #[test]
    fn a_narrow_view_is_filled_in_place() {
        let mut buf = Buf::copy_of(b"0123456789");
        let whole = buf.narrow(2..8);
        let outer = buf.narrow(1..3);
        buf.copy_from_slice(b"ab");
        assert!(buf.narrow(5..9).0.len() == 2 && buf.is_empty());
        buf.restore(outer);
        assert_eq!(&*buf, b"2ab567");
        buf.restore(whole);
        assert_eq!(&*buf, b"012ab56789");
    }
}
