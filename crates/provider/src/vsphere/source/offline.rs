//! The disks of a VM that is shut off.
//!
//! Nothing is frozen, as nobody writes. The state's name is a digest over what shows that the VM was started or changed, so then it is
//! another state. While it is read, the lease keeps the VM from being started.

use aws_lc_rs::digest;

use super::gone;
use super::sum::hex;
use crate::vsphere::inventory::VmInfo;
use crate::{Error, FrozenId, PowerState};

/// The state of all of the VM's disks. The change version is another after any change of the configuration, which each start
/// makes too; a disk that was moved or snapshotted has another file.
pub(super) fn state(vm: &VmInfo) -> FrozenId {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |text: &str| {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    };
    add(&vm.moref.value);
    add(&vm.change_version);
    add(match (vm.power, vm.is_suspended) {
        (PowerState::Off, _) => "off",
        (PowerState::On, false) => "on",
        (PowerState::On, true) => "suspended",
    });
    for disk in &vm.disks {
        add(&disk.key.to_string());
        add(&disk.backing.file);
        add(&disk.capacity.to_string());
    }
    let digest = context.finish();
    let hex = hex(&digest.as_ref()[..16]);
    FrozenId(format!("{}{hex}", FrozenId::OFFLINE))
}

/// Whether the disks are still those that a lease was had on. What else may be changed under a lease (notes, say) does not
/// matter, nor whether having a lease counts as a change.
pub(super) fn check_leased(before: &VmInfo, after: &VmInfo) -> Result<(), Error> {
    let disks = |vm: &VmInfo| {
        let all = vm.disks.iter();
        let disks: Vec<_> = all
            .map(|disk| (disk.key, disk.backing.file.clone(), disk.capacity))
            .collect();
        disks
    };
    if after.power == PowerState::On || disks(before) != disks(after) {
        return Err(gone(&after.object).detail("the VM was started, or its disks were changed, while they were read"));
    }
    Ok(())
}

/// Whether a state is still the VM's.
pub(super) fn check(vm: &VmInfo, frozen: &FrozenId) -> Result<(), Error> {
    if vm.power == PowerState::On {
        return Err(gone(&vm.object).detail("the VM was started"));
    }
    if state(vm) != *frozen {
        return Err(gone(&vm.object).detail("the VM or its disks were changed, or it was started in between"));
    }
    Ok(())
}
