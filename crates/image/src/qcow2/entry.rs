//! One entry of an L2 table [L2 table entry].

use super::spec;
use crate::place::{Packed, Place, Spot};

/// How the entries of an image are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) extended: bool,
}

impl Format {
    /// Bytes of a cluster.
    pub(crate) fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Words of 8 bytes in an entry.
    pub(crate) fn words(self) -> u64 {
        if self.extended { 2 } else { 1 }
    }

    /// Bytes that are mapped together: a cluster, or a subcluster where there are any.
    pub(crate) fn unit(self) -> u64 {
        let parts = if self.extended { spec::SUBCLUSTERS } else { 1 };
        self.cluster_size() / parts
    }

    /// Where the unit at `guest` is, by the words of its cluster's entry. Only what the entry says of itself is checked.
    pub(crate) fn decode(self, guest: u64, entry: u64, bitmap: u64) -> Result<Place, &'static str> {
        if entry & spec::COMPRESSED != 0 {
            return self.packed(guest, entry, bitmap);
        }
        let offset = entry & spec::OFFSET;
        if !offset.is_multiple_of(self.cluster_size()) {
            return Err("an L2 entry points into the middle of a cluster");
        }
        if self.extended {
            return self.subcluster(guest, offset, bitmap);
        }
        match (entry & spec::ZERO != 0, offset) {
            (true, _) if self.version < 3 => Err("an L2 entry of a version 2 image has the zero flag of version 3"),
            (true, _) => Ok(Place::Zero),
            (false, 0) => Ok(Place::Below),
            (false, offset) => Ok(at(offset)),
        }
    }

    /// [Compressed Clusters Descriptor].
    fn packed(self, guest: u64, entry: u64, bitmap: u64) -> Result<Place, &'static str> {
        if bitmap != 0 {
            return Err("a compressed cluster has subclusters");
        }
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = ((entry & !spec::COPIED & !spec::COMPRESSED) >> offset_bits) + 1;
        Ok(Place::Packed(Packed {
            spot: Spot { file: 0, offset },
            len: sectors * 512 - offset % 512,
            guest: guest & !(self.cluster_size() - 1),
            size: self.cluster_size(),
        }))
    }

    /// [Extended L2 Entries]: the low half of the bitmap says which subclusters have data, the high half which are zeros.
    fn subcluster(self, guest: u64, offset: u64, bitmap: u64) -> Result<Place, &'static str> {
        let index = guest / self.unit() % spec::SUBCLUSTERS;
        let (data, zero) = (bitmap >> index & 1, bitmap >> (index + spec::SUBCLUSTERS) & 1);
        match (data, zero) {
            (0, 0) => Ok(Place::Below),
            (0, _) => Ok(Place::Zero),
            (_, 0) if offset != 0 => Ok(at(offset + index * self.unit())),
            (_, 0) => Err("a subcluster has data, and its cluster no place"),
            _ => Err("a subcluster has data and is zeros"),
        }
    }
}

fn at(offset: u64) -> Place {
    Place::Data(Spot { file: 0, offset })
}
