//! Reading a disk with many reads under way, its pieces in order.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;
use vmferry_block::{AllocationMap, Buf, Pool, is_zero};
use vmferry_image::Image;

use crate::exit::Failure;

/// Bytes of a chunk.
pub const CHUNK: u64 = 1 << 20;
/// Reads under way at once.
pub const AHEAD: usize = 16;
/// Writes under way at once.
pub const WRITES: usize = 16;
/// Zeros are found in runs of whole blocks of so many bytes.
pub const BLOCK: usize = 64 << 10;

/// Buffers for everything that is under way: 44 MiB.
pub fn pool() -> Pool {
    Pool::new(CHUNK as usize, AHEAD + WRITES + super::digest::QUEUE + 8)
}

/// Content of a disk.
pub struct Chunk {
    /// Where it lies on the disk.
    pub guest: u64,
    /// The bytes.
    pub buf: Arc<Buf>,
    /// Which of them are not zeros, in whole blocks.
    pub filled: Vec<Range<usize>>,
}

/// The data of `map` as chunks in order, cut at multiples of [`CHUNK`].
pub fn chunks(image: Arc<Image>, map: &AllocationMap) -> impl Stream<Item = Result<Chunk, Failure>> + use<> {
    let places: Vec<_> = map.extents().to_vec();
    let places = places.into_iter().flat_map(|extent| cut(extent.start, extent.end()));
    ordered(places, pool(), move |(guest, len), mut buf: Buf| {
        let image = Arc::clone(&image);
        async move {
            buf.set_len(len as usize);
            let buf = read(&image, guest, buf).await?;
            let filled = filled(&buf);
            let buf = Arc::new(buf);
            Ok(Chunk { guest, buf, filled })
        }
    })
}

/// Makes something out of each place, in a task each, [`AHEAD`] at once, and gives it in order. A buffer is taken before the
/// task is started, so the one that is next in the order always has one.
pub fn ordered<P, T, F>(
    places: impl Iterator<Item = P> + Send,
    pool: Pool,
    make: impl Fn(P, Buf) -> F,
) -> impl Stream<Item = Result<T, Failure>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let make = Arc::new(make);
    let tasks = move |place| {
        let (pool, make) = (pool.clone(), Arc::clone(&make));
        async move {
            let buf = pool.take(CHUNK as usize).await;
            let task = AbortOnDropHandle::new(tokio::spawn(make(place, buf)));
            task.await.unwrap_or_else(|error| {
                Err(Failure::failed(format!(
                    "a task that reads ended early: {error}; this is a fault of vmferry, please report it"
                )))
            })
        }
    };
    stream::iter(places).map(tasks).buffered(AHEAD)
}

/// Fills `buf` from the disk.
pub async fn read(image: &Image, guest: u64, buf: Buf) -> Result<Buf, Failure> {
    image.read(guest, buf).await.map_err(Failure::failed)
}

/// Which parts of `bytes` are not zeros, in whole blocks.
pub fn filled(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = number * BLOCK;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += block.len(),
            _ => runs.push(start..start + block.len()),
        }
    }
    runs
}

/// `start..end` cut at multiples of [`CHUNK`]: offset and length of each piece.
pub fn cut(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + Send {
    let mut at = start;
    std::iter::from_fn(move || {
        let until = ((at / CHUNK + 1) * CHUNK).min(end);
        let piece = (at < end).then(|| (at, until - at));
        at = until;
        piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_found_in_whole_blocks() {
        let mut bytes = vec![0; 5 * BLOCK + 512];
        assert!(filled(&bytes).is_empty());
        bytes[BLOCK] = 1;
        bytes[3 * BLOCK - 1] = 1;
        bytes[5 * BLOCK + 511] = 1;
        assert_eq!(filled(&bytes), [BLOCK..3 * BLOCK, 5 * BLOCK..5 * BLOCK + 512]);
    }

    #[test]
    fn extents_are_cut_at_chunks() {
        let pieces: Vec<_> = cut(512, 2 * CHUNK + 7).collect();
        assert_eq!(pieces, [(512, CHUNK - 512), (CHUNK, CHUNK), (2 * CHUNK, 7)]);
        assert_eq!(cut(5, 5).count(), 0);
    }
}
