//! Volumes of ours: made, found, read back, deleted.

use std::sync::Arc;
use std::time::Duration;

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt_sys as sys;
use vmferry_block::{LocalFile, ReadAt};
use vmferry_image::{Image, ImageFormat, Limits, NoBacking, Source};

use super::name::{self, Place};
use super::{check, pool};
use crate::libvirt::Libvirt;
use crate::libvirt::volume::{ImageDisk, RemoteVolume, described, image_fault};
use crate::libvirt::xml::storage::{VolumeXml, empty_volume};
use crate::libvirt::{local, xml::tree::XmlError};
use crate::{DiskSource, Error, Kind, Owner, Volume, VolumeId, VolumeSpec};

/// How often a refresh is tried that another job of the pool is in the way of, and the pause between.
const REFRESH_TRIES: u32 = 10;
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// Makes an empty volume, or finds it.
pub(super) async fn create(libvirt: &Libvirt, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
    check::check_format(spec.format)?;
    let place = place(libvirt, spec, owner)?;
    // It refreshes the pool, too: a file that an earlier attempt left behind is found as a volume.
    libvirt.check_pool(&place.pool).await?;
    make(libvirt, &place).await?;
    Ok(Volume {
        id: place.id(),
        format: spec.format,
    })
}

fn place(libvirt: &Libvirt, spec: &VolumeSpec, owner: &Owner) -> Result<Place, Error> {
    Ok(Place {
        pool: libvirt.pool_name(spec.storage.as_deref()).to_owned(),
        volume: name::volume(spec, owner)?,
    })
}

async fn make(libvirt: &Libvirt, place: &Place) -> Result<(), Error> {
    let (at, xml) = (
        place.clone(),
        empty_volume(&place.volume).map_err(|error| unwritable(place, error))?,
    );
    libvirt
        .handle
        .call("create", place.object(), move |connect| {
            let pool = connect.lookup_storage_pool_by_name(&at.pool)?;
            if find(&pool, &at.volume)?.is_none() {
                StorageVol::create_xml(&pool, &xml, 0)?;
            }
            Ok(())
        })
        .await
}

fn unwritable(place: &Place, error: XmlError) -> Error {
    Error::new(Kind::Invalid, "create", place.object()).source(error)
}

/// Makes a volume empty again: deletes it and makes it anew. Uploading over old content would leave it in the holes.
pub(super) async fn remake(libvirt: &Libvirt, place: &Place) -> Result<(), Error> {
    remove(libvirt, place).await?;
    make(libvirt, place).await
}

/// How the host describes a volume right now.
pub(super) async fn describe(libvirt: &Libvirt, place: &Place) -> Result<VolumeXml, Error> {
    let (at, object) = (place.clone(), place.object());
    let text = libvirt
        .handle
        .call("look up", &object, move |connect| volume(connect, &at)?.xml_desc(0))
        .await?;
    described(&object, &text)
}

/// Opens a volume for reading: its file where it is one of this machine, through libvirt otherwise.
pub(super) async fn open(libvirt: &Libvirt, id: &VolumeId, format: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
    let place = Place::parse(id)?;
    let object = place.object();
    let volume = describe(libvirt, &place).await?;
    let source = if let Some(file) = local_file(libvirt, &volume, false).await? {
        local_source(file, &volume.path, format)
            .await
            .map_err(|error| Error::new(Kind::Failed, "open", &object).source(error))?
    } else {
        let file = RemoteVolume::open(&libvirt.handle, &volume.path).await?;
        Source::new(&volume.path, format, Arc::new(file) as Arc<dyn ReadAt>)
    };
    let image = Image::open(source, &NoBacking, Limits::default())
        .await
        .map_err(|error| image_fault("open", &object, error))?;
    Ok(Arc::new(ImageDisk::new(image, object)))
}

async fn local_source(file: std::fs::File, path: &str, format: ImageFormat) -> std::io::Result<Source> {
    let file = LocalFile::from_file(file).await?;
    let holes = match format {
        ImageFormat::Raw => Some(file.data_extents().await?),
        ImageFormat::Qcow2 | ImageFormat::Vmdk => None,
    };
    let mut source = Source::new(path, format, Arc::new(file) as Arc<dyn ReadAt>);
    source.holes = holes;
    Ok(source)
}

/// The volume's file, where it provably is one of this machine.
pub(super) async fn local_file(
    libvirt: &Libvirt,
    volume: &VolumeXml,
    write: bool,
) -> Result<Option<std::fs::File>, Error> {
    if !libvirt.may_be_local() {
        return Ok(None);
    }
    let wanted = volume.clone();
    tokio::task::spawn_blocking(move || local::open(&wanted, write))
        .await
        .map_err(|panic| Error::new(Kind::Bug, "open", format!("file {}", volume.path)).source(panic))
}

/// Deletes a volume. A volume or pool that is not there is success.
pub(super) async fn delete(libvirt: &Libvirt, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
    remove(libvirt, &place(libvirt, spec, owner)?).await
}

/// What came of an attempt to delete.
enum Removed {
    Gone,
    /// The pool is not active, so nobody knows what is in it.
    PoolInactive,
}

async fn remove(libvirt: &Libvirt, place: &Place) -> Result<(), Error> {
    let (at, object) = (place.clone(), place.object());
    let removed = libvirt
        .handle
        .call("delete", &object, move |connect| {
            let pool = match connect.lookup_storage_pool_by_name(&at.pool) {
                Ok(pool) => pool,
                Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_STORAGE_POOL => return Ok(Removed::Gone),
                Err(error) => return Err(error),
            };
            if !pool.is_active()? {
                return Ok(Removed::PoolInactive);
            }
            delete_in(&pool, &at.volume)
        })
        .await?;
    match removed {
        Removed::Gone => Ok(()),
        Removed::PoolInactive => Err(Error::new(Kind::Failed, "delete", object)
            .detail("the pool is not active")
            .remedy(format!("start it on the target host: virsh pool-start {}", place.pool))),
    }
}

/// Deletes by the exact name, also a file that libvirt did not know before a refresh.
fn delete_in(pool: &StoragePool, name: &str) -> Result<Removed, VirtError> {
    let mut volume = find(pool, name)?;
    if volume.is_none() && pool.refresh(0).is_ok() {
        volume = find(pool, name)?;
    }
    match volume.map(|volume| volume.delete(0)) {
        Some(Err(error)) if error.code().to_raw() != sys::VIR_ERR_NO_STORAGE_VOL => Err(error),
        _ => Ok(Removed::Gone),
    }
}

/// Has libvirt look at the pool's files again, so that it reports the format and capacity that a volume has now. The bytes
/// are there without it, so a failure is only logged.
pub(super) async fn refresh(libvirt: &Libvirt, place: &Place) {
    let mut tries = 0;
    loop {
        let name = place.pool.clone();
        let refreshed = libvirt
            .handle
            .call("refresh", pool::object(&place.pool), move |connect| {
                connect.lookup_storage_pool_by_name(&name)?.refresh(0)
            })
            .await;
        match refreshed {
            Ok(()) => return,
            Err(error) if tries == REFRESH_TRIES => {
                tracing::warn!(%error, "the host may report an old format and size of {}", place.object());
                return;
            }
            Err(_) => tries += 1,
        }
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

/// The volume of that name, if there is one.
fn find(pool: &StoragePool, name: &str) -> Result<Option<StorageVol>, VirtError> {
    match pool.lookup_storage_vol_by_name(name) {
        Ok(volume) => Ok(Some(volume)),
        Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_STORAGE_VOL => Ok(None),
        Err(error) => Err(error),
    }
}

/// The volume at a place.
pub(super) fn volume(connect: &Connect, place: &Place) -> Result<StorageVol, VirtError> {
    connect
        .lookup_storage_pool_by_name(&place.pool)?
        .lookup_storage_vol_by_name(&place.volume)
}
