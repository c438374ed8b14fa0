//! Where a piece of a disk is.

/// Bytes of a sector: a disk has whole ones.
pub(crate) const SECTOR: u64 = 512;

/// Where the bytes from some guest offset on are, in one image of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this offset of the file. What lies past the file's end is zeros.
    Data(u64),
    /// In a compressed cluster.
    Packed(Packed),
    /// Nowhere: they are zeros.
    Zero,
    /// Not in this image: they are what the backing file has, or zeros without one.
    Below,
}

/// Where a compressed cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Where its compressed bytes start in the file.
    pub(crate) offset: u64,
    /// An upper bound of how many they are.
    pub(crate) len: u64,
    /// The guest offset at which the cluster starts.
    pub(crate) guest: u64,
}

impl Place {
    /// Whether `next` is the place of the bytes that come `len` bytes later, so that both can be read as one.
    pub(crate) fn goes_on(self, len: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Data(here), Self::Data(there)) => here.checked_add(len) == Some(there),
            (Self::Zero, Self::Zero) | (Self::Below, Self::Below) => true,
            _ => false,
        }
    }
}

/// A place and for how many bytes it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) place: Place,
    /// Never zero.
    pub(crate) len: u64,
}
