//! The import of one disk: a lease on a carrier of its own, and one upload.

mod header;
mod sink;
mod upload;

use std::sync::Arc;

use super::carrier;
use super::found::Found;
use super::name::Carried;
use super::place::Place;
use super::spec;
use crate::vsphere::VSphere;
use crate::vsphere::client::Trouble;
use crate::vsphere::lease::{DeviceUrl, Lease};
use crate::{DiskSink, Error, Kind, Owner, VolumeId};

/// Opens the volume for an object of `len` bytes. What an earlier attempt imported is deleted; the carrier is made when the
/// object's first bytes say how large its disk is.
pub(super) async fn open(
    vsphere: &VSphere,
    id: &VolumeId,
    owner: &Owner,
    len: u64,
) -> Result<Arc<dyn DiskSink>, Error> {
    let carried = Carried::owned(id, owner)?;
    let place = Place::find(vsphere, Some(&carried.datastore)).await?;
    if let Some(found) = carrier::find(vsphere, &place.home, &carried, owner).await? {
        carrier::delete(vsphere, &place.home, &carried, &found).await?;
    }
    let import = Import {
        vsphere: vsphere.clone(),
        place,
        carried,
        owner: owner.clone(),
    };
    Ok(Arc::new(sink::ImportSink::new(import, len)))
}

/// What it takes to begin an import.
pub(super) struct Import {
    vsphere: VSphere,
    place: Place,
    carried: Carried,
    owner: Owner,
}

/// An import that was begun: the lease, the one disk in it, and whether its manifest has SHA-256.
pub(super) struct Begun {
    pub lease: Lease,
    pub device: DeviceUrl,
    pub sha256: bool,
}

impl Import {
    /// Has the server make the carrier with an empty disk of `capacity` bytes, and waits until it takes the content.
    async fn begin(&self, capacity: u64) -> Result<Begun, Error> {
        let client = &self.vsphere.client;
        let (place, carried) = (&self.place, &self.carried);
        let failed = |trouble: Trouble| self.failed("import", trouble);
        let wanted = spec::carrier(&carried.carrier, &place.datastore, capacity, &self.owner.uid);
        let asked = client.import_vapp(&place.pool, wanted, &place.home.folder, Some(&place.host));
        let lease = Lease::ready(client, asked.await.map_err(failed)?)
            .await
            .map_err(failed)?;
        let sha256 = lease.use_sha256().await.map_err(failed)?;
        let device = lease.info().devices.iter().find(|device| device.is_disk).cloned();
        let Some(device) = device else {
            let trouble = Trouble::new(Kind::Failed, "the lease has no disk");
            return Err(self.failed("import", trouble));
        };
        Ok(Begun { lease, device, sha256 })
    }

    /// The carrier, as the import left it.
    async fn made(&self) -> Result<Option<Found>, Error> {
        carrier::find(&self.vsphere, &self.place.home, &self.carried, &self.owner).await
    }

    fn object(&self) -> String {
        self.carried.object()
    }

    fn failed(&self, verb: &'static str, trouble: Trouble) -> Error {
        // A name with our tag is there until the lease that made it has ended.
        let trouble = if trouble.is("DuplicateName") {
            trouble.meaning(Kind::Busy)
        } else {
            trouble
        };
        trouble.of(verb, self.object())
    }
}
