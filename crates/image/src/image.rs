//! Reading an image: its content as the guest sees it, whatever files it is made of.

use std::sync::Arc;

use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_fault::Fault;

use crate::{Error, ImageFormat, Kind, Limits, Opener, Source};

/// An open image with its backing chain.
pub struct Image {
    capacity: u64,
    format: ImageFormat,
}

/// A run of guest bytes that lie in a row in the image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataRun {
    /// Where it starts in the file.
    pub file_offset: u64,
    /// Where it starts on the disk.
    pub guest: u64,
    /// Length in bytes, never zero.
    pub len: u64,
}

fn todo() -> Error {
    Fault::new(Kind::Unsupported, "read", "image")
}

impl Image {
    /// Opens an image and, through `opener`, its backing chain.
    pub async fn open(source: Source, opener: &dyn Opener, limits: Limits) -> Result<Self, Error> {
        let _ = (source, opener, limits);
        Err(todo())
    }

    /// A raw image whose hole map is known: the disk is as large as the map says.
    pub fn raw(name: impl Into<String>, file: Arc<dyn ReadAt>, map: AllocationMap) -> Self {
        let _: (String, Arc<dyn ReadAt>) = (name.into(), file);
        Self {
            capacity: map.capacity(),
            format: ImageFormat::Raw,
        }
    }

    /// Format of the top image.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Virtual size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Which parts of the disk hold data, the backing chain merged in.
    pub async fn map(&self) -> Result<AllocationMap, Error> {
        Err(todo())
    }

    /// Fills the whole of `buf` with the disk's content from `offset` and gives it back.
    pub async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let _ = (offset, buf);
        Err(todo())
    }

    /// The data runs in the order of the file, for decoding it front to back: only for an image without backing file,
    /// without compressed clusters, and with its data in guest order. [`Unsupported`](Kind::Unsupported) otherwise.
    pub async fn data_runs(&self) -> Result<Vec<DataRun>, Error> {
        Err(todo())
    }
}
