//! The container file, computed from an allocation map before a byte of it is written.
//!
//! Any range of the file can be produced on its own, in any order, by any process that has the same map. Memory is in
//! proportion to the map's extents, never to the disk or the file.

mod qcow2;
mod raw;
mod runs;

use std::ops::Range;

use vmferry_block::{AllocationMap, ObjectHash};
use vmferry_fault::Fault;

use crate::place::SECTOR;
use crate::{Error, ImageFormat, Kind};

/// Where every byte of an image file comes from.
#[derive(Debug, Clone)]
pub struct Layout {
    capacity: u64,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Raw(raw::Raw),
    Qcow2(qcow2::Qcow2),
}

/// A part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The format's own structures, at most 64 KiB of them.
    Meta {
        /// Where they go in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Content of the disk.
    Data {
        /// Where it goes in the file.
        offset: u64,
        /// Where it is read from the disk.
        guest: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Zeros: a hole of a raw image, or the rest of a last cluster.
    Zero {
        /// Where they go in the file.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl Piece {
    /// Where it goes in the file.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Meta { offset, .. } | Self::Data { offset, .. } | Self::Zero { offset, .. } => *offset,
        }
    }

    /// Length in bytes, never zero.
    #[expect(clippy::len_without_is_empty, reason = "a piece is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Meta { bytes, .. } => bytes.len() as u64,
            Self::Data { len, .. } | Self::Zero { len, .. } => *len,
        }
    }
}

impl Layout {
    /// The layout of an image of `virtual_size` bytes that holds the disk of `map`. Where `virtual_size` is larger than
    /// the map's capacity, the disk is grown: the rest reads as zeros.
    ///
    /// [`Unsupported`](Kind::Unsupported) for a format that is not written, a size that the format cannot have, or a disk
    /// that would have to shrink.
    pub fn new(format: ImageFormat, map: &AllocationMap, virtual_size: u64) -> Result<Self, Error> {
        let refuse = |detail: String, remedy: &'static str| {
            let object = format!("{format} image of {virtual_size} bytes");
            Err(Fault::new(Kind::Unsupported, "lay out", object)
                .detail(detail)
                .remedy(remedy))
        };
        if virtual_size < map.capacity() {
            let detail = format!("the disk has {} bytes", map.capacity());
            return refuse(
                detail,
                "a disk can grow, never shrink: ask for at least its present size",
            );
        }
        let max = match format {
            ImageFormat::Qcow2 => qcow2::MAX_SIZE,
            ImageFormat::Raw | ImageFormat::Vmdk => i64::MAX.cast_unsigned() / SECTOR * SECTOR,
        };
        if virtual_size > max {
            return refuse(format!("{format} ends at {max} bytes"), "ask for a smaller disk");
        }
        let virtual_size = virtual_size.next_multiple_of(SECTOR);
        let body = match format {
            ImageFormat::Raw => Body::Raw(raw::Raw::new(map, virtual_size)),
            ImageFormat::Qcow2 => Body::Qcow2(qcow2::Qcow2::new(map, virtual_size)),
            ImageFormat::Vmdk => return refuse("vmdk is not written yet".into(), "use qcow2 or raw"),
        };
        Ok(Self {
            capacity: map.capacity(),
            body,
        })
    }

    /// The format of the file.
    pub fn format(&self) -> ImageFormat {
        match self.body {
            Body::Raw(_) => ImageFormat::Raw,
            Body::Qcow2(_) => ImageFormat::Qcow2,
        }
    }

    /// Size of the disk in the image, in bytes: whole sectors of 512, an odd size rounded up.
    pub fn virtual_size(&self) -> u64 {
        match &self.body {
            Body::Raw(raw) => raw.len(),
            Body::Qcow2(qcow2) => qcow2.virtual_size(),
        }
    }

    /// Size of the disk that is read, in bytes. Data past it does not exist.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Raw(raw) => raw.len(),
            Body::Qcow2(qcow2) => qcow2.len(),
        }
    }

    /// Whether the file has no bytes at all: a raw image of an empty disk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces that make up `range` of the file, in order and without a gap. What lies past the end of the file is
    /// left out.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> + '_ {
        let end = range.end.min(self.len());
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let piece = match &self.body {
                Body::Raw(raw) => raw.piece(at, end),
                Body::Qcow2(qcow2) => qcow2.piece(at, end),
            };
            at += piece.len();
            Some(piece)
        })
    }

    /// A short text that is the same only for a file that is the same, given the same disk: a process that continues
    /// another's work compares it.
    pub fn fingerprint(&self) -> String {
        let mut hash = ObjectHash::default();
        hash.update(b"vmferry-layout-v1\n");
        hash.update(self.format().as_str().as_bytes());
        for number in [self.capacity, self.virtual_size(), self.len()] {
            hash.update(&number.to_be_bytes());
        }
        let runs = match &self.body {
            Body::Raw(raw) => raw.runs(),
            Body::Qcow2(qcow2) => qcow2.runs(),
        };
        for run in runs.iter() {
            hash.update(&run.start.to_be_bytes());
            hash.update(&run.end.to_be_bytes());
        }
        let hex = hash.finish().to_string();
        format!("{}-{}", self.format(), &hex["sha256:".len()..][..32])
    }

    /// All data of the disk below this guest offset lies before `file_offset` in the file, and no data from it on does.
    /// It is never past [`virtual_size`](Self::virtual_size).
    pub fn guest_before(&self, file_offset: u64) -> u64 {
        match &self.body {
            Body::Raw(raw) => file_offset.min(raw.len()),
            Body::Qcow2(qcow2) => qcow2.guest_before(file_offset),
        }
    }

    /// Where in the file the byte at this guest offset lies, and for how many bytes the disk goes on there in a row.
    /// `None` for what is not data.
    pub fn file_offset(&self, guest: u64) -> Option<(u64, u64)> {
        let (offset, run) = match &self.body {
            Body::Raw(raw) => raw.file_offset(guest),
            Body::Qcow2(qcow2) => qcow2.file_offset(guest),
        }?;
        let left = self.capacity.checked_sub(guest).filter(|left| *left > 0)?;
        Some((offset, run.min(left)))
    }
}
