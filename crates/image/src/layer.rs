//! One image of a chain.

use std::sync::Arc;

use vmferry_block::{AllocationMap, Buf};
use vmferry_fault::Fault;

use crate::codec::Codec;
use crate::info::Info;
use crate::place::{Place, SECTOR, Segment, Spot};
use crate::qcow2::Qcow2;
use crate::source::Backing;
use crate::tables::Tables;
use crate::vmdk::Vmdk;
use crate::{Error, ImageFormat, Kind, Opener, Source};

/// An open image of one of the formats that are read.
pub(crate) enum Layer {
    /// The file is the disk.
    Raw(Source),
    /// The file has tables.
    Qcow2(Box<Qcow2>),
    /// A descriptor and files with tables or without.
    Vmdk(Box<Vmdk>),
}

impl Layer {
    /// Opens an image of a chain that shares `tables`, without its backing file.
    pub(crate) async fn open(source: Source, opener: &dyn Opener, tables: &Arc<Tables>) -> Result<Self, Error> {
        Ok(match source.format {
            ImageFormat::Raw => Self::Raw(source),
            ImageFormat::Qcow2 => Self::Qcow2(Box::new(Qcow2::open(source, tables).await?)),
            ImageFormat::Vmdk => Self::Vmdk(Box::new(Vmdk::open(source, opener, tables).await?)),
        })
    }

    /// Refuses a backing file that is not the one that this image was made over, where that can be told.
    pub(crate) fn check_backing(&self, below: &Self) -> Result<(), Error> {
        match (self, below) {
            (Self::Vmdk(vmdk), Self::Vmdk(parent)) => vmdk.check_parent(Some(parent), below.name()),
            (Self::Vmdk(vmdk), _) => vmdk.check_parent(None, below.name()),
            _ => Ok(()),
        }
    }

    /// The file that was opened first, and what the others are called after.
    pub(crate) fn source(&self) -> &Source {
        match self {
            Self::Raw(source) => source,
            Self::Qcow2(qcow2) => qcow2.source(),
            Self::Vmdk(vmdk) => vmdk.source(),
        }
    }

    /// A file of the image by its number.
    pub(crate) fn file(&self, number: u32) -> Option<&Source> {
        match self {
            Self::Raw(_) | Self::Qcow2(_) => (number == 0).then(|| self.source()),
            Self::Vmdk(vmdk) => vmdk.file(number),
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
            Self::Vmdk(vmdk) => vmdk.size(),
        }
    }

    pub(crate) fn backing(&self) -> Option<&Backing> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(qcow2) => qcow2.backing(),
            Self::Vmdk(vmdk) => vmdk.backing(),
        }
    }

    /// What it says of itself.
    pub(crate) fn info(&self) -> Info {
        let source = self.source();
        let backing = self.backing().cloned();
        let mut info = Info {
            name: source.name.clone(),
            format: source.format,
            virtual_size: self.size(),
            file_size: source.file.size(),
            version: None,
            cluster_size: None,
            compression: None,
            backing_file: backing.as_ref().map(|backing| backing.path.clone()),
            backing_format: backing.and_then(|backing| backing.format),
            qcow2: None,
            vmdk: None,
        };
        match self {
            Self::Raw(_) => {}
            Self::Qcow2(qcow2) => qcow2.describe(&mut info),
            Self::Vmdk(vmdk) => vmdk.describe(&mut info),
        }
        info
    }

    /// Refuses tables over which a walk could take forever.
    pub(crate) async fn check_tables(&self) -> Result<(), Error> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Qcow2(qcow2) => qcow2.check_tables().await,
            Self::Vmdk(vmdk) => vmdk.check_tables().await,
        }
    }

    /// Loads the tables that map the disk from `at` on, about `window` bytes of them, and says up to where they do.
    pub(crate) async fn load_tables(&self, at: u64, window: u64) -> Result<u64, Error> {
        match self {
            Self::Raw(_) => Ok(u64::MAX),
            Self::Qcow2(qcow2) => qcow2.load_tables(at, window).await,
            Self::Vmdk(vmdk) => vmdk.load_tables(at, window).await,
        }
    }

    /// Where the bytes from `at` on are: the longest stretch within `len` bytes that can be read as one. `at` and `len`
    /// lie within the disk, and `len` is not zero.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        match self {
            Self::Raw(source) => Ok(locate_raw(source, at, len, 0)),
            Self::Qcow2(qcow2) => qcow2.locate(at, len).await,
            Self::Vmdk(vmdk) => vmdk.locate(at, len).await,
        }
    }

    /// How the compressed clusters in one of its files are compressed.
    pub(crate) fn codec(&self, file: u32) -> Option<Codec> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(qcow2) => (file == 0).then(|| qcow2.codec()),
            Self::Vmdk(vmdk) => vmdk.codec(file),
        }
    }

    /// Fills `buf` from one of its files; past the file's end are zeros.
    pub(crate) async fn read(&self, spot: Spot, mut buf: Buf) -> Result<Buf, Error> {
        let Some(source) = self.file(spot.file) else {
            return Err(Fault::new(Kind::Bug, "read", format!("image {}", self.name())).detail("it has no such file"));
        };
        let left = source.file.size().saturating_sub(spot.offset);
        let there = (buf.len() as u64).min(left) as usize;
        buf.get_mut(there..).into_iter().for_each(|rest| rest.fill(0));
        if there == 0 {
            return Ok(buf);
        }
        let whole = buf.narrow(0..there);
        let mut buf = source.read_into(spot.offset, buf).await?;
        buf.restore(whole);
        Ok(buf)
    }
}

/// Where the bytes from `at` of a file of plain bytes are, as far as its hole map says.
pub(crate) fn locate_raw(source: &Source, at: u64, len: u64, file: u32) -> Segment {
    let place = Place::Data(Spot { file, offset: at });
    let Some(map) = &source.holes else {
        return Segment { place, len };
    };
    let extents = map.extents();
    let next = extents.partition_point(|extent| extent.end() <= at);
    let (place, end) = match extents.get(next) {
        Some(extent) if extent.start <= at => (place, extent.end()),
        Some(extent) => (Place::Zero, extent.start),
        None => (Place::Zero, at + len),
    };
    Segment {
        place,
        len: len.min(end - at),
    }
}
