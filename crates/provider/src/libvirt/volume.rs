//! Reading volumes through libvirt, and images as disks.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use virt::error::Error as VirtError;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use vmferry_block::{AllocationMap, Buf, ReadAt};
use vmferry_image::{Error as ImageError, Image, Kind as ImageKind};

use super::conn::Handle;
use super::xml::storage::VolumeXml;
use super::xml::tree::XmlError;
use crate::{DiskSource, Error, Kind};

/// How long one range may take: even a slow line brings a few MiB in that time.
const READ_LIMIT: Duration = Duration::from_mins(2);

/// The file of a volume, read in ranges through libvirt (`virStorageVolDownload`), wherever the host is.
///
/// It must not be written meanwhile: libvirt would not notice.
pub(super) struct RemoteVolume {
    handle: Handle,
    path: String,
    size: u64,
}

impl RemoteVolume {
    /// Opens the volume at `path` of any active pool.
    pub async fn open(handle: &Handle, path: &str) -> Result<Self, Error> {
        let object = format!("volume {path}");
        let wanted = path.to_owned();
        let text = handle
            .call("look up", &object, move |connect| {
                vmferry_libvirt::vol_by_path(connect, &wanted)?.xml_desc(0)
            })
            .await?;
        let described = described(&object, &text)?;
        Ok(Self {
            handle: handle.clone(),
            path: path.to_owned(),
            size: described.file_bytes,
        })
    }
}

#[async_trait]
impl ReadAt for RemoteVolume {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buf.is_empty() {
            return Ok(buf);
        }
        let path = self.path.clone();
        let object = format!("volume {path}");
        let read = self.handle.call_within(READ_LIMIT, "read", object, move |connect| {
            let volume = vmferry_libvirt::vol_by_path(connect, &path)?;
            let stream = Stream::new(connect, 0)?;
            match download(&volume, &stream, offset, &mut buf) {
                Ok(whole) => {
                    stream.finish()?;
                    Ok(whole.then_some(buf))
                }
                Err(error) => {
                    // What went wrong is known already.
                    let _ = stream.abort();
                    Err(error)
                }
            }
        });
        match read.await {
            Ok(Some(buf)) => Ok(buf),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(fault) => Err(io::Error::other(fault)),
        }
    }
}

/// Fills `buf` from `offset`. Whether there were enough bytes.
fn download(volume: &StorageVol, stream: &Stream, offset: u64, buf: &mut [u8]) -> Result<bool, VirtError> {
    volume.download(stream, offset, buf.len() as u64, 0)?;
    let mut rest = buf;
    while !rest.is_empty() {
        match usize::try_from(stream.recv(rest)?) {
            Ok(received @ 1..) => rest = rest.get_mut(received..).unwrap_or_default(),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Reads a volume's description.
pub(super) fn described(object: &str, text: &str) -> Result<VolumeXml, Error> {
    let bad = |detail: String| Error::new(Kind::Invalid, "read the description of", object).detail(detail);
    VolumeXml::parse(text)
        .map_err(|error: XmlError| bad(error.to_string()))?
        .ok_or_else(|| bad("it names no path".to_owned()))
}

/// An image that nobody writes, as a disk.
pub(super) struct ImageDisk {
    image: Image,
    object: String,
}

impl ImageDisk {
    /// `object` is what messages call it.
    pub fn new(image: Image, object: impl Into<String>) -> Self {
        let object = object.into();
        Self { image, object }
    }
}

#[async_trait]
impl DiskSource for ImageDisk {
    fn capacity(&self) -> u64 {
        self.image.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        self.image
            .map()
            .await
            .map_err(|error| image_fault("map", &self.object, error))
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        self.image
            .read(offset, buf)
            .await
            .map_err(|error| image_fault("read", &self.object, error))
    }

    async fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// What an image's failure means here.
pub(super) fn image_fault(action: &'static str, object: &str, error: ImageError) -> Error {
    let kind = match error.kind() {
        ImageKind::Corrupt => Kind::Invalid,
        ImageKind::Unsupported | ImageKind::Encrypted => Kind::Unsupported,
        ImageKind::Hostile => Kind::Hostile,
        ImageKind::Missing => Kind::NotFound,
        ImageKind::Io => Kind::Failed,
        ImageKind::Bug => Kind::Bug,
    };
    Error::new(kind, action, object).source(error)
}
