//! The target side: staged files of content `import` (or of a node, by ssh), and a VM whose disks are made of them.
//!
//! A volume is the staged file of one disk; its id says how the bytes get there ([`place`]). Nothing is made for it before they
//! come. The VM is made in two steps: first without disks, so that it carries our mark from its first moment on; then each disk
//! by a task of its own that copies the staged file ([`vm`]).
//!
//! Ownership: a file carries the migration's tag in its name, a VM in its tags, and the whole UID in its description. What does
//! not carry it is never written, started, stopped or deleted.

mod check;
mod choose;
mod copies;
mod disks;
mod files;
mod hardware;
mod node;
mod ova;
mod place;
mod power;
mod readback;
mod sink;
mod strays;
mod vm;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use vmferry_block::Digest;

use super::Proxmox;
use crate::{
    Creation, DiskSink, DiskSource, Error, ImageFormat, Intake, Owner, PowerState, Pull, TargetHost, TargetPlan, VmId,
    VmSpec, Volume, VolumeId, VolumeSpec,
};
use place::Place;

/// What its disks can be. Storages of block devices have raw disks, whatever is asked for.
const FORMATS: &[ImageFormat] = &[ImageFormat::Qcow2, ImageFormat::Raw];
/// What it makes disks of.
const INTAKE: &[ImageFormat] = &[ImageFormat::Qcow2, ImageFormat::Vmdk, ImageFormat::Raw];

#[async_trait]
impl TargetHost for Proxmox {
    fn native_format(&self) -> ImageFormat {
        ImageFormat::Qcow2
    }

    fn formats(&self) -> &'static [ImageFormat] {
        FORMATS
    }

    fn intake(&self) -> Intake {
        Intake::Object(INTAKE)
    }

    async fn check_target(&self, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
        check::plan(self, plan, owner).await
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
        check::format(spec.format)?;
        let choice = choose::choose(self, spec.storage.as_deref(), owner).await?;
        let place = Place::new(&choice, spec, owner)?;
        tracing::debug!(volume = place.id().0, "the disk comes {}", check::way(&choice));
        Ok(Volume {
            id: place.id(),
            format: spec.format,
        })
    }

    async fn pull(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        object: &Pull,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        files::pull(self, &Place::owned(volume, owner)?, object, cancel).await
    }

    async fn open_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        checksum: Option<Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error> {
        sink::open(self, Place::owned(volume, owner)?, len, checksum).await
    }

    fn reads_back(&self, volume: &VolumeId) -> bool {
        Place::parse(volume).is_ok_and(|place| readback::folder(self, &place).is_some())
    }

    async fn open_volume(&self, volume: &VolumeId, _format: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
        readback::open(self, volume).await
    }

    async fn delete_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
        files::delete(self, spec, owner).await
    }

    async fn create_vm(&self, spec: &VmSpec, owner: &Owner) -> Result<Creation, Error> {
        vm::create(self, spec, owner).await
    }

    async fn set_power(&self, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error> {
        power::set(self, vm, owner, power).await
    }

    async fn delete_created(&self, name: &str, owner: &Owner) -> Result<(), Error> {
        vm::delete(self, name, owner).await
    }
}
