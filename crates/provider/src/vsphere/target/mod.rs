//! The target side: disks imported through leases, and a VM made of them.
//!
//! A volume is a *carrier*: a VM of one disk that the import makes, named by the migration's tag. When all disks are there the VM
//! itself is made without disks, each disk is moved from its carrier's folder into the VM's, attached and grown, and the emptied
//! carrier is deleted. A lease for each disk lets them go in parallel, and lets one fail alone.
//!
//! Ownership: carriers and VMs carry the migration's UID in `vmferry.uid` of their configuration. What does not carry it is never
//! written, started, stopped or deleted.

mod carrier;
mod check;
mod file;
mod found;
mod guest;
mod import;
mod name;
mod place;
mod spec;
mod vm;

use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::Digest;

use super::VSphere;
use crate::{
    Creation, DiskSink, DiskSource, Error, ImageFormat, Intake, Owner, PowerState, TargetHost, TargetPlan, VmId,
    VmSpec, Volume, VolumeId, VolumeSpec,
};

/// What its disks can be, and what it takes in.
const FORMATS: &[ImageFormat] = &[ImageFormat::Vmdk];

#[async_trait]
impl TargetHost for VSphere {
    fn native_format(&self) -> ImageFormat {
        ImageFormat::Vmdk
    }

    fn formats(&self) -> &'static [ImageFormat] {
        FORMATS
    }

    fn intake(&self) -> Intake {
        Intake::Object(FORMATS)
    }

    async fn check_target(&self, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
        check::plan(self, plan, owner).await
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
        carrier::choose(self, spec, owner).await
    }

    async fn open_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        _checksum: Option<Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error> {
        import::open(self, volume, owner, len).await
    }

    async fn open_volume(&self, volume: &VolumeId, _format: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
        file::open(self, volume).await
    }

    async fn delete_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
        carrier::delete_for(self, spec, owner).await
    }

    async fn create_vm(&self, spec: &VmSpec, owner: &Owner) -> Result<Creation, Error> {
        vm::create(self, spec, owner).await.map(Creation::Done)
    }

    async fn set_power(&self, vm: &VmId, owner: &Owner, power: PowerState) -> Result<(), Error> {
        vm::set_power(self, vm, owner, power).await
    }

    async fn delete_created(&self, name: &str, owner: &Owner) -> Result<(), Error> {
        vm::delete(self, name, owner).await
    }
}
