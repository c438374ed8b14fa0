//! What cannot be exported.

use crate::vsphere::inventory::{VirtualDisk, VmInfo};
use crate::{Error, Kind};

/// The largest disk that vSphere itself can have: 62 TiB.
const LARGEST: u64 = 62 << 40;

/// Refuses a VM that has no disk, or one that could not be exported.
pub(super) fn check(vm: &VmInfo) -> Result<(), Error> {
    let refused = |why: &str| Error::new(Kind::Unsupported, "move", &vm.object).detail(why.to_owned());
    if vm.disks.is_empty() {
        return Err(refused("it has no disk").remedy("attach one"));
    }
    if vm.is_encrypted {
        return Err(
            refused("it is encrypted, or has a virtual TPM, which vSphere does not export")
                .remedy("decrypt it (storage policy without encryption), or remove the virtual TPM"),
        );
    }
    vm.disks.iter().try_for_each(|disk| match obstacle(disk) {
        None => Ok(()),
        Some((why, remedy)) => {
            let object = format!("disk {:?} of {}", disk.name(), vm.object);
            Err(Error::new(Kind::Unsupported, "move", object).detail(why).remedy(remedy))
        }
    })
}

/// Why a disk cannot be exported, and what can be done about it.
fn obstacle(disk: &VirtualDisk) -> Option<(String, &'static str)> {
    let backing = &disk.backing;
    Some(match backing.class.as_str() {
        "VirtualDiskRawDiskMappingVer1BackingInfo" | "VirtualDiskRawDiskVer2BackingInfo" => (
            "it is a raw device mapping".to_owned(),
            "convert it to a VMDK (migrate the VM's storage, choosing another format), or detach it",
        ),
        _ if backing.mode.starts_with("independent") => (
            format!("it is independent ({}), so no snapshot holds it", backing.mode),
            "make its mode dependent while the VM is shut off, or detach it",
        ),
        _ if backing.mode == "nonpersistent" || backing.mode == "undoable" => (
            format!("its mode is {}", backing.mode),
            "make its mode dependent while the VM is shut off, or detach it",
        ),
        _ if backing.is_shared => (
            "several VMs may write to it".to_owned(),
            "turn its sharing off, or detach it",
        ),
        _ if disk.controller.as_ref().is_some_and(|controller| controller.is_shared) => (
            "its controller shares its bus with other VMs".to_owned(),
            "turn the controller's bus sharing off, or detach the disk",
        ),
        _ if backing.is_encrypted => (
            "it is encrypted, and vSphere exports no encrypted disks".to_owned(),
            "decrypt it (storage policy without encryption)",
        ),
        _ if disk.controller.is_none() => (
            "it is on a controller of a kind that vmferry does not know".to_owned(),
            "attach it to a SCSI, SATA, NVMe or IDE controller",
        ),
        _ if disk.capacity == 0 => (
            "the server does not say its size".to_owned(),
            "check that its datastore is there",
        ),
        _ if disk.capacity > LARGEST => (
            format!(
                "it has {} bytes, more than the 62 TiB that a virtual disk can have",
                disk.capacity
            ),
            "detach it",
        ),
        "VirtualDiskFlatVer1BackingInfo"
        | "VirtualDiskFlatVer2BackingInfo"
        | "VirtualDiskSparseVer1BackingInfo"
        | "VirtualDiskSparseVer2BackingInfo"
        | "VirtualDiskSeSparseBackingInfo" => return None,
        other => (
            format!("its backing is of a kind that vmferry does not know ({other})"),
            "move it to a VMFS, NFS, vSAN or vVol datastore",
        ),
    })
}
