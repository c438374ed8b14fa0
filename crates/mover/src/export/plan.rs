//! How an object is cut into parts, and how much memory that takes.

use vmferry_staging::PartLimits;

use crate::chunk::CHUNK;
use crate::lanes;
use crate::{Error, Kind};

/// Size of a part where nothing asks for another.
const PART: u64 = 8 << 20;
/// Chunks that are being read or hashed while all others wait in parts, at most.
const FLOW: u64 = 16;
/// The least memory that a transfer can do with: a part of the usual size, one that is put together, and the flow.
pub(crate) const LEAST: u64 = 24 << 20;

/// How many parts are many for a stream, and how large they become for that.
const MANY: u64 = 10_000;
const LARGER: u64 = 16 << 20;

/// The cut of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Length of the object in bytes, or the most that it can be.
    pub(super) len: u64,
    /// Whether the length is what it will be.
    pub(super) exact: bool,
    /// Size of every part but the last, a multiple of the chunk size.
    pub(super) part_size: u64,
    /// Chunks in the pool.
    pub(super) chunks: usize,
    /// Parts under way at once.
    pub(super) in_flight: usize,
    /// Whether parts are too large to be held: they flow past, one at a time.
    pub(super) flowing: bool,
    /// Whether there may be more parts than the store takes, so that it joins them.
    pub(super) joined: bool,
}

impl Plan {
    /// The cut of an object of `len` bytes for a store with these limits, in this much memory.
    pub(super) fn new(len: u64, limits: PartLimits, memory: u64) -> Result<Self, Error> {
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
        Ok(Self::with_part_size(len, part_size, limits, memory))
    }

    /// The cut of a stream of at most `most` bytes, with parts of `part_size` or of what fits. It has some memory less, for what
    /// is packed.
    pub(super) fn of_stream(most: u64, part_size: Option<u64>, limits: PartLimits, memory: u64) -> Result<Self, Error> {
        let memory = memory.saturating_sub(CHUNK * (Self::for_packing(memory) + 2 * lanes::count()) as u64);
        // The note of a part grows with the file, so a large file has larger parts.
        let few = (most / MANY).clamp(PART, LARGER);
        let min = limits.min.max(few);
        let plan = match part_size {
            Some(size) => Self::with_part_size(most, size, limits, memory),
            None => Self::of_few_parts(most, min, limits, memory)?,
        };
        let joined = most.div_ceil(plan.part_size) > u64::from(limits.count);
        if plan.flowing || (joined && most > limits.joined) {
            return Err(too_long(most, &plan, limits));
        }
        let exact = false;
        Ok(Self { exact, joined, ..plan })
    }

    /// As many parts as the store takes at most, or more where it joins them and fewer would not fit the memory.
    fn of_few_parts(most: u64, min: u64, limits: PartLimits, memory: u64) -> Result<Self, Error> {
        let joined = || Self::with_part_size(most, min.next_multiple_of(CHUNK), limits, memory);
        match Self::new(most, PartLimits { min, ..limits }, memory) {
            Ok(plan) if plan.flowing && most <= limits.joined => Ok(joined()),
            Err(_) if most <= limits.joined => Ok(joined()),
            plan => plan,
        }
    }

    /// Chunks for reading and packing.
    pub(super) fn for_packing(memory: u64) -> usize {
        (memory / CHUNK / 4).clamp(8, 16) as usize
    }

    /// The cut with parts of this size.
    pub(super) fn with_part_size(len: u64, part_size: u64, limits: PartLimits, memory: u64) -> Self {
        let (part, all) = (part_size.div_ceil(CHUNK), memory.max(LEAST) / CHUNK);
        let flow = FLOW.min(all / 4);
        // While parts are under way, one more is put together.
        let held = (all - flow) / part;
        let in_flight = held.saturating_sub(1).clamp(1, u64::from(limits.in_flight.max(1)));
        let used = if held == 0 {
            2 * flow
        } else {
            flow + part * (in_flight + 1)
        };
        Self {
            len,
            exact: true,
            part_size,
            chunks: used.min(all) as usize,
            in_flight: in_flight as usize,
            flowing: held == 0,
            joined: false,
        }
    }

    /// Number of parts.
    #[cfg(test)]
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

fn too_long(most: u64, plan: &Plan, limits: PartLimits) -> Error {
    let detail = match limits.joined {
        0 => format!(
            "the store takes {} parts at most, and parts of {} MiB do not fit the memory",
            limits.count,
            plan.part_size >> 20
        ),
        joined => format!("the store takes at most {joined} bytes"),
    };
    let object = format!("VMDK of up to {most} bytes");
    Error::new(Kind::Staging(vmferry_staging::Kind::Invalid), "stage", object)
        .detail(detail)
        .remedy("use another staging storage, or another format")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: PartLimits = PartLimits {
        min: 5 << 20,
        max: 5 << 30,
        count: 10_000,
        joined: 10_000 * (5 << 30),
        in_flight: 4,
    };

    #[test]
    fn parts_grow_with_the_object_and_memory_does_not() {
        for (len, part, in_flight, chunks, flowing) in [
            (0, 8, 4, 56, false),
            (1 << 30, 8, 4, 56, false),
            (200 << 30, 21, 1, 58, false),
            (400 << 30, 41, 1, 64, false),
            (1 << 40, 105, 1, 32, true),
            (40 << 40, 4195, 1, 32, true),
        ] {
            let plan = Plan::new(len, S3, 64 << 20).unwrap();
            assert_eq!(
                (plan.part_size, plan.in_flight, plan.chunks, plan.flowing),
                (part << 20, in_flight, chunks, flowing),
                "{len}"
            );
            assert!(plan.parts() <= 10_000);
        }
        assert!(Plan::new(1 << 60, S3, 64 << 20).is_err());
    }

    #[test]
    fn no_more_than_the_memory_and_the_store_allow() {
        for memory in [0, 24, 32, 43, 64, 128] {
            for in_flight in [0, 1, 2, 8] {
                for part in [1, 8, 16, 60, 500] {
                    let limits = PartLimits { in_flight, ..S3 };
                    let plan = Plan::with_part_size(1 << 40, part << 20, limits, memory << 20);
                    assert!(plan.chunks as u64 <= memory.max(24), "{plan:?}");
                    assert!((1..=in_flight.max(1) as usize).contains(&plan.in_flight), "{plan:?}");
                    // What is under way can be held, and there are buffers to read into beside it.
                    assert!(plan.flowing || plan.chunks > plan.in_flight * part as usize, "{plan:?}");
                }
            }
        }
    }

    /// (bound in GiB, memory in MiB) → (part in MiB, joined)
    #[test]
    fn a_stream_is_held_however_long_it_may_be() {
        for (most, memory, part, joined) in [
            (1, 64, 8, false),
            (150, 64, 16, false),
            (200, 64, 21, false),
            (500, 64, 16, true),
            (150, 32, 16, false),
            (200, 32, 16, true),
            (4 << 10, 64, 16, true),
            (4 << 10, 24, 16, true),
            (48 << 10, 64, 16, true),
        ] {
            let plan = Plan::of_stream(most << 30, None, S3, memory << 20).unwrap();
            assert_eq!(
                (plan.part_size >> 20, plan.joined),
                (part, joined),
                "{most} GiB in {memory} MiB"
            );
            assert!(!plan.flowing && !plan.exact && plan.chunks as u64 <= memory, "{plan:?}");
        }
        let error = Plan::of_stream(49 << 40, None, S3, 64 << 20).unwrap_err();
        assert!(
            error.to_string().contains("takes at most 53687091200000 bytes"),
            "{error}"
        );
        // A store that joins nothing.
        let limits = PartLimits { joined: 0, ..S3 };
        assert!(Plan::of_stream(200 << 30, None, limits, 64 << 20).is_ok());
        let error = Plan::of_stream(500 << 30, None, limits, 64 << 20).unwrap_err();
        assert!(error.to_string().contains("do not fit the memory"), "{error}");
        // A length that is known is neither joined nor refused.
        let plan = Plan::new(4 << 40, S3, 64 << 20).unwrap();
        assert!(plan.flowing && !plan.joined);
    }

    #[test]
    fn the_last_part_is_what_is_left() {
        let plan = Plan::new((20 << 20) + 5, S3, 64 << 20).unwrap();
        assert_eq!(plan.parts(), 3);
        assert_eq!((plan.part_len(0), plan.part_len(2)), (8 << 20, (4 << 20) + 5));
    }
}
