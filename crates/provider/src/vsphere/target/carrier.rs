//! Carriers: chosen, found, deleted.

use super::found::{Found, taken};
use super::name::Carried;
use super::place::{Home, Place};
use super::spec::DISK;
use super::{FORMATS, check};
use crate::vsphere::VSphere;
use crate::{Error, ImageFormat, Kind, Owner, Volume, VolumeSpec};

/// Fixes where the disk goes. It is made when it is written: an import cannot wait for its bytes.
pub(super) async fn choose(vsphere: &VSphere, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
    check::check_format(spec.format)?;
    let carrier = Carried::name_of(spec, owner)?;
    let place = Place::find(vsphere, spec.storage.as_deref()).await?;
    let carried = Carried {
        datastore: place.datastore,
        carrier,
    };
    Ok(Volume {
        id: carried.id(),
        format: FORMATS.first().copied().unwrap_or(ImageFormat::Vmdk),
    })
}

/// The carrier of that name, where there is one.
///
/// # Errors
/// [`Kind::NameTaken`] where it is not `owner`'s.
pub(super) async fn find(
    vsphere: &VSphere,
    home: &Home,
    carried: &Carried,
    owner: &Owner,
) -> Result<Option<Found>, Error> {
    match Found::by_name(&vsphere.client, home, &carried.carrier).await? {
        Some(found) if !found.is_of(owner) => Err(taken(&carried.object(), &found.moref)),
        found => Ok(found),
    }
}

/// Deletes the carrier of a volume, with its disk where that has not been moved away.
pub(super) async fn delete_for(vsphere: &VSphere, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
    let carried = Carried {
        carrier: Carried::name_of(spec, owner)?,
        datastore: spec.storage.clone().unwrap_or_default(),
    };
    let home = Home::find(vsphere).await?;
    match find(vsphere, &home, &carried, owner).await {
        Ok(Some(found)) => delete(vsphere, &home, &carried, &found).await,
        Ok(None) => Ok(()),
        Err(error) if error.kind() == Kind::NameTaken => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes a carrier, and the disk that was detached from it and still lies in its folder.
pub(super) async fn delete(vsphere: &VSphere, home: &Home, carried: &Carried, found: &Found) -> Result<(), Error> {
    let object = carried.object();
    if let Some(path) = found.option(DISK).filter(|path| found.disk(path).is_none()) {
        delete_file(vsphere, home, path).await?;
    }
    found.remove(vsphere, &object).await
}

/// Deletes a disk that no VM has. Gone is success. One that is locked is [`Kind::Busy`]: an attempt that was cut short still moves it.
pub(super) async fn delete_file(vsphere: &VSphere, home: &Home, path: &str) -> Result<(), Error> {
    let deleted = vsphere.client.delete_virtual_disk(path, Some(&home.datacenter)).await;
    match deleted {
        Err(trouble) if trouble.kind == Kind::NotFound => Ok(()),
        deleted => deleted.map_err(|trouble| trouble.of("delete", format!("disk {path:?}"))),
    }
}
