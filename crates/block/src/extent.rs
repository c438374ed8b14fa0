//! Which parts of a disk hold data.

use thiserror::Error;

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Length in bytes, never zero.
    pub len: u64,
}

impl Extent {
    /// The first byte after it.
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

/// The data extents of a disk: ordered, disjoint, not touching. Everything between them reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllocationMap {
    capacity: u64,
    extents: Vec<Extent>,
}

/// An extent that does not come after the one before it, or lies outside the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("extent at {} of {} bytes does not follow the one that ends at {after}, or ends past the capacity of {capacity} bytes", extent.start, extent.len)]
pub struct OutOfOrder {
    /// The extent that was refused.
    pub extent: Extent,
    /// Where the last accepted one ends.
    pub after: u64,
    /// The disk's capacity in bytes.
    pub capacity: u64,
}

impl AllocationMap {
    /// How many extents a map may have: 16 bytes each, so at most 16 MiB a disk. A more fragmented disk has its smallest
    /// gaps counted as data: it is read a little more, and stays correct.
    pub const MAX_EXTENTS: usize = 1 << 20;

    /// Starts a map of a disk of `capacity` bytes.
    pub fn builder(capacity: u64) -> MapBuilder {
        MapBuilder {
            capacity,
            extents: Vec::new(),
            gap: 0,
            limit: Self::MAX_EXTENTS,
        }
    }

    /// A map that says that everything is data.
    pub fn full(capacity: u64) -> Self {
        let extents = if capacity == 0 {
            Vec::new()
        } else {
            vec![Extent {
                start: 0,
                len: capacity,
            }]
        };
        Self { capacity, extents }
    }

    /// The disk's capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The data extents in order.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes of data.
    pub fn data_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// The same map in units of `unit` bytes: each extent grown outwards to whole units, cut at the capacity.
    #[must_use]
    pub fn align(&self, unit: u64) -> Self {
        let mut extents: Vec<Extent> = Vec::with_capacity(self.extents.len());
        for extent in &self.extents {
            let start = extent.start / unit * unit;
            let end = extent.end().next_multiple_of(unit).min(self.capacity);
            match extents.last_mut() {
                Some(last) if start <= last.end() => last.len = end - last.start,
                _ => extents.push(Extent {
                    start,
                    len: end - start,
                }),
            }
        }
        Self {
            capacity: self.capacity,
            extents,
        }
    }
}

/// Builds an [`AllocationMap`] from extents in order, merging those that touch.
#[derive(Debug)]
pub struct MapBuilder {
    capacity: u64,
    extents: Vec<Extent>,
    /// Gaps of this size and smaller count as data.
    gap: u64,
    limit: usize,
}

impl MapBuilder {
    /// Adds a data extent. It must start at or after the end of the last one and end within the capacity.
    pub fn data(&mut self, start: u64, len: u64) -> Result<(), OutOfOrder> {
        let after = self.extents.last().map_or(0, |last| last.end());
        let fits = start.checked_add(len).is_some_and(|end| end <= self.capacity);
        if start < after || !fits {
            return Err(OutOfOrder {
                extent: Extent { start, len },
                after,
                capacity: self.capacity,
            });
        }
        if len == 0 {
            return Ok(());
        }
        match self.extents.last_mut() {
            Some(last) if start - after <= self.gap => last.len = start + len - last.start,
            _ => self.extents.push(Extent { start, len }),
        }
        if self.extents.len() > self.limit {
            self.coarsen();
        }
        Ok(())
    }

    /// The finished map.
    pub fn build(self) -> AllocationMap {
        AllocationMap {
            capacity: self.capacity,
            extents: self.extents,
        }
    }

    /// Merges over ever larger gaps until half the room is free again.
    fn coarsen(&mut self) {
        while self.extents.len() > self.limit / 2 {
            self.gap = (self.gap * 2).max(4096);
            let gap = self.gap;
            self.extents.dedup_by(|next, last| {
                let merge = next.start - last.end() <= gap;
                if merge {
                    last.len = next.end() - last.start;
                }
                merge
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_out_of_order_or_outside() {
        let mut map = AllocationMap::builder(100);
        map.data(10, 10).unwrap();
        assert!(map.data(15, 10).is_err());
        assert!(map.data(95, 10).is_err());
        assert!(map.data(20, u64::MAX).is_err());
        assert_eq!(map.build().extents(), [Extent { start: 10, len: 10 }]);
    }

    proptest! {
        #[test]
        fn a_coarse_map_still_covers_every_extent(steps in prop::collection::vec((0u64..20_000, 1u64..9000), 1..400)) {
            let mut builder = AllocationMap::builder(u64::MAX);
            builder.limit = 16;
            let (mut at, mut put) = (0, Vec::new());
            for (gap, len) in steps {
                at += gap;
                builder.data(at, len).unwrap();
                put.push((at, at + len));
                at += len;
            }
            let map = builder.build();
            prop_assert!(map.extents().len() <= 16);
            prop_assert!(map.extents().windows(2).all(|pair| pair[0].end() < pair[1].start));
            for (start, end) in put {
                prop_assert!(map.extents().iter().any(|extent| extent.start <= start && end <= extent.end()));
            }
        }

        #[test]
        fn aligned_extents_are_whole_units(raw in prop::collection::vec((0u64..300, 1u64..300), 0..40)) {
            let mut builder = AllocationMap::builder(1 << 20);
            let mut at = 0;
            for (gap, len) in raw {
                at += gap;
                builder.data(at, len).unwrap();
                at += len;
            }
            let map = builder.build();
            let aligned = map.align(64);
            prop_assert!(aligned.extents().iter().all(|e| e.start % 64 == 0 && e.len % 64 == 0));
            prop_assert!(aligned.extents().windows(2).all(|pair| pair[0].end() < pair[1].start));
            prop_assert!(aligned.data_bytes() >= map.data_bytes());
        }
    }
}
