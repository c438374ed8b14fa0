//! What is to be made at the target, and in which format a disk is staged.

use vmferry_api::{DiskFormat, ProviderType, VMMigrationSpec};
use vmferry_provider::{ImageFormat, Intake, VolumeSpec};

use crate::hints;
use crate::run::Run;
use crate::world::{Source, Target};

/// The format in which a disk is staged between these two, so that it is encoded once, on its way out: vSphere takes and gives
/// streamOptimized VMDK only. A raw target disk is decoded on its way in: sparse raw files do not stay sparse in every store.
pub(crate) fn staged_format(source: &Source, target: &Target) -> ImageFormat {
    let kinds = [&source.resource, &target.resource].map(|resource| resource.spec.provider_type);
    if kinds.contains(&ProviderType::Vsphere) {
        ImageFormat::Vmdk
    } else {
        ImageFormat::Qcow2
    }
}

/// The format of the target's disks.
pub(crate) fn target_format(spec: &VMMigrationSpec, target: &Target) -> ImageFormat {
    match spec.target_disk_format {
        Some(DiskFormat::Qcow2) => ImageFormat::Qcow2,
        Some(DiskFormat::Vmdk) => ImageFormat::Vmdk,
        Some(DiskFormat::Raw) => ImageFormat::Raw,
        None => target.host.native_format(),
    }
}

/// What is written down where neither the hint nor the Provider says where disks go. It is not empty: an API server of 1.20 takes
/// an empty text in an apply for null, and refuses it.
const NO_STORAGE: &str = "-";

/// Where the target's disks go: the hint, or else the Provider's default as it is now.
pub(crate) fn storage(spec: &VMMigrationSpec, target: &Target) -> Option<String> {
    let default = || target.resource.spec.defaults.as_ref()?.datastore.clone();
    spec.target_storage_hint.clone().or_else(default)
}

/// The volumes for disks of these capacities, in order.
pub(crate) fn volumes(
    spec: &VMMigrationSpec,
    target: &Target,
    storage: Option<&String>,
    capacities: &[u64],
) -> Vec<VolumeSpec> {
    capacities
        .iter()
        .zip(0_u32..)
        .map(|(capacity, index)| VolumeSpec {
            index,
            vm_name: spec.target_name.clone(),
            storage: storage.cloned(),
            format: target_format(spec, target),
            capacity: hints::capacity(spec, index as usize, *capacity),
        })
        .collect()
}

impl Run {
    /// The volumes for the recorded disks, in order.
    pub(crate) fn volumes(&self, target: &Target) -> Vec<VolumeSpec> {
        let storage = self.settled_storage(target);
        let mut volumes = volumes(self.spec(), target, storage.as_ref(), &self.capacities());
        if matches!(target.host.intake(), Intake::Object(_)) {
            // The staged object comes as it is: that is the file.
            for (volume, disk) in volumes.iter_mut().zip(&self.status.disks) {
                let staged = disk.format.as_deref().and_then(|format| format.parse().ok());
                volume.format = staged.unwrap_or(volume.format);
            }
        }
        volumes
    }

    /// From here on the target's disks go where they go as of now: a Provider's default that changes later moves none of them.
    pub(crate) fn settle_storage(&mut self, target: &Target) {
        let storage = storage(self.spec(), target);
        if let Some(accepted) = &mut self.status.accepted_spec {
            accepted.settled_storage = Some(storage.unwrap_or_else(|| NO_STORAGE.to_owned()));
        }
    }

    /// Where the target's disks go, as it was settled. A migration that an older version validated goes by the Provider.
    fn settled_storage(&self, target: &Target) -> Option<String> {
        let accepted = self.status.accepted_spec.as_ref();
        match accepted.and_then(|accepted| accepted.settled_storage.clone()) {
            Some(settled) => Some(settled).filter(|storage| storage != NO_STORAGE),
            None => storage(self.spec(), target),
        }
    }

    /// Virtual sizes of the recorded disks, in order.
    pub(crate) fn capacities(&self) -> Vec<u64> {
        let capacity = |bytes: Option<i64>| u64::try_from(bytes.unwrap_or(0)).unwrap_or(0);
        self.status
            .disks
            .iter()
            .map(|disk| capacity(disk.capacity_bytes))
            .collect()
    }
}
