//! What travels through the pipelines.

use vmferry_block::{AllocationMap, Buf};

/// Bytes of a chunk: large enough that the cost of a call vanishes, small enough that many fit the memory.
pub(crate) const CHUNK: u64 = 1 << 20;
/// Reads under way at once.
pub(crate) const READ_AHEAD: usize = 12;

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

/// The data of a map within a range, cut into pieces that fit a chunk: offset and length of each.
pub(crate) fn cut(map: &AllocationMap, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let first = map.extents().partition_point(|extent| extent.end() <= start);
    let within = map.extents()[first..]
        .iter()
        .take_while(move |extent| extent.start < end);
    within.flat_map(move |extent| {
        let (from, to) = (extent.start.max(start), extent.end().min(end));
        // At multiples of the chunk size, so that all but the first are aligned.
        std::iter::successors(Some(from), |at| Some((at / CHUNK + 1) * CHUNK))
            .take_while(move |at| *at < to)
            .map(move |at| (at, ((at / CHUNK + 1) * CHUNK).min(to) - at))
    })
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
