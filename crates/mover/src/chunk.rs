//! What travels through the pipelines.

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, Extent, Pool};

use crate::{Error, error};

/// Bytes of a chunk: large enough that the cost of a call vanishes, small enough that many fit the memory.
pub(crate) const CHUNK: u64 = 1 << 20;
/// Reads under way at once.
pub(crate) const READ_AHEAD: usize = 24;

/// A piece of an image file, and what of it is content of the disk.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Where it lies in the file.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) buf: Buf,
    /// The content, in guest order.
    pub(crate) spans: Vec<Span>,
}

/// A part of a chunk that is content of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte within the chunk.
    pub(crate) at: usize,
    /// Length in bytes.
    pub(crate) len: usize,
    /// Where it lies on the disk.
    pub(crate) guest: u64,
}

impl Chunk {
    /// The first byte of the file that comes after it.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.buf.len() as u64
    }

    /// The bytes of a span.
    pub(crate) fn bytes(&self, span: &Span) -> &[u8] {
        &self.buf[span.at..span.at + span.len]
    }
}

/// The data of a map within a range, cut into pieces that fit a chunk: offset and length of each. They are cut at
/// multiples of the chunk size, so that all but the first of an extent are aligned.
pub(crate) fn cut(map: &AllocationMap, start: u64, end: u64) -> Cut<'_> {
    let first = map.extents().partition_point(|extent| extent.end() <= start);
    Cut {
        extents: &map.extents()[first..],
        at: start,
        end,
    }
}

/// What [`cut`] returns.
pub(crate) struct Cut<'a> {
    extents: &'a [Extent],
    at: u64,
    end: u64,
}

impl Iterator for Cut<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let (extent, rest) = self.extents.split_first()?;
        let at = self.at.max(extent.start);
        if at >= self.end {
            return None;
        }
        let end = ((at / CHUNK + 1) * CHUNK).min(extent.end()).min(self.end);
        self.at = end;
        if end == extent.end() {
            self.extents = rest;
        }
        Some((at, end - at))
    }
}

/// Reads chunks ahead and hands them on in order, until `places` (offset and length of each) end, nobody takes them any more,
/// or it is called off. A place that is longer than a chunk is read in one go, into as many buffers as it takes.
///
/// Buffers are taken before a read is begun, so the read that is next in the order always has them. Where several threads
/// take chunks, they take them by turns.
pub(crate) async fn feed<'a>(
    mut places: impl Iterator<Item = (u64, u64)> + Send,
    pool: Pool,
    read: impl Fn(u64, Vec<Buf>) -> BoxFuture<'a, Result<Vec<Chunk>, Error>> + Send,
    chunks: Vec<mpsc::Sender<Chunk>>,
    cancel: &CancellationToken,
    object: &str,
) -> Result<(), Error> {
    let (mut ahead, mut reading) = (FuturesOrdered::new(), 0);
    let mut place = places.next();
    let mut bufs: Vec<Buf> = Vec::new();
    let mut takers = chunks.iter().cycle();
    while place.is_some() || !ahead.is_empty() {
        let missing = place.map_or(0, |(_, len)| len - bufs.iter().map(|buf| buf.len() as u64).sum::<u64>());
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(error::cancelled(object)),
            buf = pool.take(missing.min(CHUNK) as usize), if place.is_some() && reading < READ_AHEAD => {
                bufs.push(buf);
                if let Some((offset, _)) = place.filter(|_| missing <= CHUNK) {
                    reading += bufs.len();
                    ahead.push_back(read(offset, std::mem::take(&mut bufs)));
                    place = places.next();
                }
            }
            Some(read) = ahead.next() => {
                for chunk in read? {
                    reading -= 1;
                    let Some(taker) = takers.next() else { return Ok(()) };
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Err(error::cancelled(object)),
                        // Whoever closed it knows why.
                        sent = taker.send(chunk) => if sent.is_err() { return Ok(()) },
                    }
                }
            }
        }
    }
    Ok(())
}

/// What reads one chunk, for [`feed`] with places that fit a chunk.
pub(crate) async fn single(
    bufs: Vec<Buf>,
    read: impl AsyncFnOnce(Buf) -> Result<Chunk, Error>,
) -> Result<Vec<Chunk>, Error> {
    match bufs.into_iter().next() {
        Some(buf) => Ok(vec![read(buf).await?]),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_cut_at_chunks_and_at_the_range() {
        let mut map = AllocationMap::builder(10 * CHUNK);
        map.data(4096, CHUNK).unwrap();
        map.data(5 * CHUNK, 2 * CHUNK).unwrap();
        let map = map.build();
        let all: Vec<_> = cut(&map, 0, u64::MAX).collect();
        let expected = [
            (4096, CHUNK - 4096),
            (CHUNK, 4096),
            (5 * CHUNK, CHUNK),
            (6 * CHUNK, CHUNK),
        ];
        assert_eq!(all, expected);
        let some: Vec<_> = cut(&map, CHUNK + 1, 6 * CHUNK + 7).collect();
        assert_eq!(some, [(CHUNK + 1, 4095), (5 * CHUNK, CHUNK), (6 * CHUNK, 7)]);
    }
}
