//! What could not be made, before anything is.

use super::FORMATS;
use super::found::{Found, object, taken};
use super::name::{self, Carried};
use super::place::Place;
use crate::vsphere::VSphere;
use crate::{Error, ImageFormat, Kind, Owner, TargetPlan};

/// A datastore with less free than this is full. What a migration will write is not known before the disks are read, and disks are
/// thin, so this only covers what vSphere keeps with a VM.
const LEAST_FREE: u64 = 64 << 20;

/// Checks a plan.
pub(super) async fn plan(vsphere: &VSphere, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
    name::check_vm_name(&plan.name)?;
    for disk in &plan.disks {
        check_format(disk.format)?;
        Carried::name_of(disk, owner)?;
    }
    let mut storages: Vec<_> = plan.disks.iter().map(|disk| disk.storage.as_deref()).collect();
    storages.push(plan.storage.as_deref());
    storages.sort_unstable();
    storages.dedup();
    for storage in storages {
        let place = Place::find(vsphere, storage).await?;
        check_space(&place)?;
        let wanted: Vec<_> = plan.attachments.iter().collect();
        place.networks(vsphere, &wanted).await?;
        // Carriers need no look: a name with our tag is ours.
        if let Some(found) = Found::by_name(&vsphere.client, &place.home, &plan.name).await?
            && !found.is_of(owner)
        {
            return Err(taken(&object(&plan.name), &found.moref));
        }
    }
    Ok(())
}

/// Refuses a format that disks here cannot have.
pub(super) fn check_format(format: ImageFormat) -> Result<(), Error> {
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(
        Error::new(Kind::Unsupported, "make", format!("a disk of format {format}"))
            .detail("vSphere's disks are VMDKs")
            .remedy("set spec.targetDiskFormat to vmdk, or leave it out"),
    )
}

fn check_space(place: &Place) -> Result<(), Error> {
    if place.free >= LEAST_FREE {
        return Ok(());
    }
    Err(
        Error::new(Kind::NoSpace, "use", format!("datastore {:?}", place.datastore))
            .detail(format!(
                "{} MiB are free, at least {} MiB are needed",
                place.free >> 20,
                LEAST_FREE >> 20
            ))
            .remedy("free some space on it, or name another datastore in spec.targetStorageHint"),
    )
}
