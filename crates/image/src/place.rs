//! Where a piece of a disk is.

/// Bytes of a sector: a disk has whole ones.
pub(crate) const SECTOR: u64 = 512;

/// Where the bytes from some guest offset on are, in one image of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file. What lies past the file's end is zeros.
    Data(Spot),
    /// In a compressed cluster.
    Packed(Packed),
    /// Nowhere: they are zeros.
    Zero,
    /// Not in this image: they are what the backing file has, or zeros without one.
    Below,
}

/// A place in one of the files of an image. Most images have one file: number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spot {
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

/// Where a compressed cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Where its compressed bytes start.
    pub(crate) spot: Spot,
    /// An upper bound of how many they are.
    pub(crate) len: u64,
    /// The guest offset at which the cluster starts.
    pub(crate) guest: u64,
    /// Bytes of the disk that it holds. Not more than 2 MiB.
    pub(crate) size: u64,
}

impl Packed {
    /// The guest offset after it.
    pub(crate) fn guest_end(self) -> u64 {
        self.guest + self.size
    }
}

impl Place {
    /// Whether `next` is the place of the bytes that come `len` bytes later, so that both can be read as one.
    pub(crate) fn goes_on(self, len: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Data(here), Self::Data(there)) => {
                here.file == there.file && here.offset.checked_add(len) == Some(there.offset)
            }
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
