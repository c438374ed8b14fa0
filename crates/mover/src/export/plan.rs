//! How an object is cut into parts, and how much memory that takes.

use vmferry_staging::PartLimits;

use crate::chunk::CHUNK;
use crate::{Error, Kind};

/// Size of a part where nothing asks for another.
const PART: u64 = 8 << 20;
/// Chunks for a transfer: 48 MiB, unless one part alone is larger.
const CHUNKS: u64 = 48;
/// Chunks that are being read or hashed while all others wait in parts.
const FLOW: u64 = 16;

/// The cut of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Length of the object in bytes.
    pub(super) len: u64,
    /// Size of every part but the last, a multiple of the chunk size.
    pub(super) part_size: u64,
    /// Chunks in the pool.
    pub(super) chunks: usize,
    /// Parts under way at once.
    pub(super) in_flight: usize,
}

impl Plan {
    /// The cut of an object of `len` bytes for a store with these limits.
    pub(super) fn new(len: u64, limits: PartLimits) -> Result<Self, Error> {
        let fitting = len.div_ceil(u64::from(limits.count.max(1)));
        let part_size = PART.max(limits.min).max(fitting).next_multiple_of(CHUNK);
        if part_size > limits.max {
            let most = limits.max.saturating_mul(u64::from(limits.count));
            return Err(Error::new(
                Kind::Staging(vmferry_staging::Kind::Invalid),
                "stage",
                format!("object of {len} bytes"),
            )
            .detail(format!("the store takes at most {most} bytes"))
            .remedy("use another staging storage"));
        }
        Ok(Self::with_part_size(len, part_size))
    }

    /// The cut with parts of this size.
    pub(super) fn with_part_size(len: u64, part_size: u64) -> Self {
        let part = part_size.div_ceil(CHUNK);
        // While one part waits to be put, the next is put together, and the flow never runs dry.
        let chunks = CHUNKS.max(part + FLOW);
        let in_flight = ((chunks - FLOW) / part).saturating_sub(1).clamp(1, 3);
        Self {
            len,
            part_size,
            chunks: chunks as usize,
            in_flight: in_flight as usize,
        }
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> u32 {
        self.len.div_ceil(self.part_size) as u32
    }

    /// The part in which a byte lies.
    pub(super) fn part_of(&self, offset: u64) -> u32 {
        (offset / self.part_size) as u32
    }

    /// Where a part starts.
    pub(super) fn start(&self, part: u32) -> u64 {
        (u64::from(part) * self.part_size).min(self.len)
    }

    /// Length of a part.
    pub(super) fn part_len(&self, part: u32) -> u64 {
        self.start(part + 1) - self.start(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: PartLimits = PartLimits {
        min: 5 << 20,
        max: 5 << 30,
        count: 10_000,
        in_flight: 3,
    };

    #[test]
    fn parts_grow_with_the_object_and_memory_stays_small() {
        for (len, part, chunks) in [(0, 8, 48), (1 << 30, 8, 48), (1 << 40, 105, 121), (5 << 40, 525, 541)] {
            let plan = Plan::new(len, S3).unwrap();
            assert_eq!((plan.part_size, plan.chunks), (part << 20, chunks), "{len}");
            assert!(plan.parts() <= 10_000);
            assert!((1..=3).contains(&plan.in_flight));
        }
        assert!(Plan::new(1 << 60, S3).is_err());
    }

    #[test]
    fn the_last_part_is_what_is_left() {
        let plan = Plan::new((20 << 20) + 5, S3).unwrap();
        assert_eq!(plan.parts(), 3);
        assert_eq!((plan.part_len(0), plan.part_len(2)), (8 << 20, (4 << 20) + 5));
    }
}
