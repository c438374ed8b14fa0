//! One image of a chain.

use std::sync::Arc;

use vmferry_block::{AllocationMap, Buf};
use vmferry_fault::Fault;

use crate::place::{Place, SECTOR, Segment};
use crate::qcow2::{self, Backing, Qcow2, Tables};
use crate::{Error, ImageFormat, Kind, Source};

/// An open image file of one of the formats that are read.
pub(crate) enum Layer {
    /// The file is the disk.
    Raw(Source),
    /// The file has tables.
    Qcow2(Qcow2),
}

impl Layer {
    /// Opens image number `depth` of a chain that shares `tables`.
    pub(crate) async fn open(source: Source, depth: u32, tables: &Arc<Tables>) -> Result<Self, Error> {
        match source.format {
            ImageFormat::Raw => Ok(Self::Raw(source)),
            ImageFormat::Qcow2 => Qcow2::open(source, depth, Arc::clone(tables)).await.map(Self::Qcow2),
            ImageFormat::Vmdk => Err(Fault::new(Kind::Unsupported, "open", format!("image {}", source.name))
                .detail("vmdk is not read yet")
                .remedy("convert it first: qemu-img convert -O qcow2")),
        }
    }

    pub(crate) fn source(&self) -> &Source {
        match self {
            Self::Raw(source) => source,
            Self::Qcow2(qcow2) => qcow2.source(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.source().name
    }

    pub(crate) fn format(&self) -> ImageFormat {
        self.source().format
    }

    /// Virtual size in bytes. A raw file of an odd size is a disk whose last sector is filled up with zeros, as in QEMU.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Raw(source) => {
                let holes = source.holes.as_ref();
                let size = holes.map_or(source.file.size(), AllocationMap::capacity);
                size.div_ceil(SECTOR).saturating_mul(SECTOR)
            }
            Self::Qcow2(qcow2) => qcow2.size(),
        }
    }

    pub(crate) fn backing(&self) -> Option<&Backing> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(qcow2) => qcow2.backing(),
        }
    }

    /// Refuses tables over which a walk could take forever.
    pub(crate) async fn check_tables(&self) -> Result<(), Error> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Qcow2(qcow2) => qcow2.check_tables().await,
        }
    }

    /// Where the bytes from `at` on are: the longest stretch within `len` bytes that can be read as one. `at` and `len`
    /// lie within the disk, and `len` is not zero.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        match self {
            Self::Raw(source) => Ok(locate_raw(source, at, len)),
            Self::Qcow2(qcow2) => qcow2.locate(at, len).await,
        }
    }

    /// Fills `buf` from `offset` of the file; past its end are zeros.
    pub(crate) async fn read(&self, offset: u64, mut buf: Buf) -> Result<Buf, Error> {
        let source = self.source();
        let left = source.file.size().saturating_sub(offset);
        let there = (buf.len() as u64).min(left) as usize;
        buf.get_mut(there..).into_iter().for_each(|rest| rest.fill(0));
        if there == 0 {
            return Ok(buf);
        }
        let whole = buf.narrow(0..there);
        let read = source.file.read_at(offset, buf).await;
        let mut buf = read.map_err(|error| qcow2::io_fault(source, offset, error))?;
        buf.restore(whole);
        Ok(buf)
    }
}

fn locate_raw(source: &Source, at: u64, len: u64) -> Segment {
    let Some(map) = &source.holes else {
        let place = Place::Data(at);
        return Segment { place, len };
    };
    let extents = map.extents();
    let next = extents.partition_point(|extent| extent.end() <= at);
    let (place, end) = match extents.get(next) {
        Some(extent) if extent.start <= at => (Place::Data(at), extent.end()),
        Some(extent) => (Place::Zero, extent.start),
        None => (Place::Zero, at + len),
    };
    Segment {
        place,
        len: len.min(end - at),
    }
}
