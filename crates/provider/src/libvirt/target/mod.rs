//! The target side: volumes in a storage pool, and a domain made of them.
//!
//! Ownership: a volume carries the migration's tag in its name ([`name`]), a domain its UID in the metadata. What does not
//! carry it is never written, started, stopped or deleted.

mod check;
mod name;
mod pool;
mod sink;
mod vm;
mod volume;

use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::Digest;

use super::Libvirt;
use crate::{
    Creation, DiskSink, DiskSource, Error, ImageFormat, Owner, PowerState, TargetHost, TargetPlan, VmId, VmSpec,
    Volume, VolumeId, VolumeSpec,
};

/// What its disks can be.
const FORMATS: &[ImageFormat] = &[ImageFormat::Qcow2, ImageFormat::Raw];

#[async_trait]
impl TargetHost for Libvirt {
    fn native_format(&self) -> ImageFormat {
        ImageFormat::Qcow2
    }

    fn formats(&self) -> &'static [ImageFormat] {
        FORMATS
    }

    async fn check_target(&self, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
        check::plan(self, plan, owner).await
    }

    async fn create_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<Volume, Error> {
        volume::create(self, spec, owner).await
    }

    async fn open_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        _checksum: Option<Digest>,
    ) -> Result<Arc<dyn DiskSink>, Error> {
        sink::open(self, volume, owner, len).await
    }

    async fn reopen_sink(
        &self,
        volume: &VolumeId,
        owner: &Owner,
        len: u64,
        kept: u64,
    ) -> Result<Option<Arc<dyn DiskSink>>, Error> {
        sink::reopen(self, volume, owner, len, kept).await
    }

    async fn open_volume(&self, volume: &VolumeId, format: ImageFormat) -> Result<Arc<dyn DiskSource>, Error> {
        volume::open(self, volume, format).await
    }

    async fn delete_volume(&self, spec: &VolumeSpec, owner: &Owner) -> Result<(), Error> {
        volume::delete(self, spec, owner).await
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

#[cfg(test)]
mod tests;
