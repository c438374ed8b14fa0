//! Reading back what was written: the staged file, where it is in a folder that this machine has, too.

use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::{AllocationMap, Buf, LocalFile, ReadAt};
use vmferry_image::{Error as ImageError, Image, Limits, NoBacking, Source};

use super::place::{Place, Way};
use crate::proxmox::{Proxmox, Shared};
use crate::{DiskSource, Error, ImageFormat, Kind, VolumeId};

/// Opens a volume whose file is in the shared folder of the storage that its disk goes to.
pub(super) async fn open(proxmox: &Proxmox, id: &VolumeId) -> Result<Arc<dyn DiskSource>, Error> {
    let place = Place::parse(id)?;
    let Some(shared) = folder(proxmox, &place) else {
        return Err(Error::new(Kind::Unsupported, "read back", place.object())
            .detail("Proxmox VE's API gives no bytes of a disk, and its storage is not a folder of this machine")
            .remedy("use --verify stream: what arrives is compared with the staged object's SHA-256"));
    };
    let path = shared.path.join("import").join(place.file());
    let object = path.display().to_string();
    let fault = |error: std::io::Error| Error::new(Kind::Failed, "open", &object).source(error);
    let file = LocalFile::open(path).await.map_err(fault)?;
    let format = place.format()?;
    let holes = match format {
        ImageFormat::Raw => Some(file.data_extents().await.map_err(fault)?),
        ImageFormat::Qcow2 | ImageFormat::Vmdk => None,
    };
    let mut source = Source::new(&object, format, Arc::new(file) as Arc<dyn ReadAt>);
    source.holes = holes;
    match Image::open(source, &NoBacking, Limits::default()).await {
        Ok(image) => Ok(Arc::new(Staged { image, object })),
        Err(error) => Err(unreadable("open", &object, error)),
    }
}

/// The folder that a place's file is in, where this machine has it, and the disk goes there, too.
pub(super) fn folder<'a>(proxmox: &'a Proxmox, place: &Place) -> Option<&'a Shared> {
    let is_there = |shared: &&Shared| shared.storage == place.storage && shared.storage == place.target;
    let shared = proxmox.config.shared.as_ref().filter(is_there);
    shared.filter(|_| place.way == Way::Shared)
}

fn unreadable(action: &'static str, object: &str, error: ImageError) -> Error {
    Error::new(Kind::Failed, action, object).source(error)
}

struct Staged {
    image: Image,
    object: String,
}

#[async_trait]
impl DiskSource for Staged {
    fn capacity(&self) -> u64 {
        self.image.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        let map = self.image.map().await;
        map.map_err(|error| unreadable("map", &self.object, error))
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let read = self.image.read(offset, buf).await;
        read.map_err(|error| unreadable("read", &self.object, error))
    }

    async fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}
