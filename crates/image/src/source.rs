//! Where an image's bytes come from, and who decides which other files may be opened for it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_fault::Fault;

use crate::{Error, ImageFormat, Kind};

/// The bytes of one image file, and what its owner knows about them.
#[derive(Clone)]
pub struct Source {
    /// How messages name it, and how an [`Opener`] recognises it when it names a backing file: a path, say.
    pub name: String,
    /// Its format. It is never guessed from the content: a guest can write any header into a raw disk.
    pub format: ImageFormat,
    /// The bytes.
    pub file: Arc<dyn ReadAt>,
    /// For a raw image, which parts of the file hold data; `None` counts all of it. Other formats know it themselves.
    pub holes: Option<AllocationMap>,
}

impl Source {
    /// An image file without a hole map.
    pub fn new(name: impl Into<String>, format: ImageFormat, file: Arc<dyn ReadAt>) -> Self {
        Self {
            name: name.into(),
            format,
            file,
            holes: None,
        }
    }

    /// Reads `len` bytes, which the caller has bounded.
    pub(crate) async fn read(&self, offset: u64, len: u64) -> Result<Buf, Error> {
        self.read_into(offset, Buf::alone(len as usize)).await
    }

    /// Fills `buf`, which ends within the file.
    pub(crate) async fn read_into(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let read = self.file.read_at(offset, buf).await;
        read.map_err(|error| Fault::new(Kind::Io, "read", format!("image {} at {offset}", self.name)).source(error))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("size", &self.file.size())
            .finish_non_exhaustive()
    }
}

/// A backing file as an image names it. None of it was checked: it is what the last writer of the image put there, and
/// that may be a guest's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingRef {
    /// The [`Source::name`] of the image that names it: a relative path starts from there.
    pub from: String,
    /// The text: a path, or `json:…`, `nbd:…`, anything.
    pub path: String,
    /// The format that is recorded with it, if one is.
    pub format: Option<String>,
    /// How many images lie above it: 1 for the first backing file.
    pub depth: u32,
}

/// What an image says of its backing file, before anyone looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) path: String,
    pub(crate) format: Option<String>,
}

/// A file that holds a part of a disk, as a VMDK descriptor names it. As little of it was checked as of a [`BackingRef`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentRef {
    /// The [`Source::name`] of the image that names it: a relative path starts from there.
    pub from: String,
    /// The path.
    pub path: String,
    /// What the descriptor says that it is: plain bytes ([`Raw`](ImageFormat::Raw)) or a file with tables
    /// ([`Vmdk`](ImageFormat::Vmdk)).
    pub format: ImageFormat,
}

/// Opens the other files that an image is made of, or refuses to.
#[async_trait]
pub trait Opener: Send + Sync {
    /// Opens a backing file with the kind [`Hostile`](Kind::Hostile) for what must not be opened and
    /// [`Missing`](Kind::Missing) for what is not there. Where no format is recorded, it is up to the opener to know it
    /// from elsewhere or to refuse.
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, Error>;

    /// Opens a part of a disk that consists of several files, with the kinds of
    /// [`open_backing`](Self::open_backing). Refuses all of them unless it is implemented.
    async fn open_extent(&self, extent: &ExtentRef) -> Result<Source, Error> {
        Err(Fault::new(Kind::Hostile, "open", format!("image {}", extent.from))
            .detail(format!(
                "a part of its disk lies in the file {:?} where an image must be one file",
                extent.path
            ))
            .remedy("make one file of it first: qemu-img convert -O qcow2"))
    }
}

/// Refuses every other file: for images that must stand alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBacking;

#[async_trait]
impl Opener for NoBacking {
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, Error> {
        Err(Fault::new(Kind::Hostile, "open", format!("image {}", backing.from))
            .detail(format!(
                "it names the backing file {:?} where none is allowed",
                backing.path
            ))
            .remedy("flatten it first: qemu-img convert -O qcow2"))
    }
}

/// What reading an image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many images a chain may have, the top one included.
    pub chain: u32,
    /// Bytes of tables that are kept in memory, for the whole chain.
    pub cache: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chain: 64,
            cache: 8 << 20,
        }
    }
}
