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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsphere::inventory::devices;
    use crate::vsphere::soap::Element;

    /// The disk of a VM whose controller, backing and capacity have this in them.
    fn disk(controller: &str, class: &str, backing: &str, capacity: &str) -> VirtualDisk {
        let text = format!(
            "<hardware xmlns:xsi='x'><device xsi:type='VirtualLsiLogicController'><key>1000</key><busNumber>0</busNumber>\
             {controller}</device><device xsi:type='VirtualDisk'><key>2000</key><backing xsi:type='{class}'>{backing}</backing>\
             <controllerKey>1000</controllerKey><unitNumber>0</unitNumber>{capacity}</device></hardware>"
        );
        devices(&Element::parse(&text).unwrap()).0.remove(0)
    }

    #[test]
    fn disks_that_no_lease_gives_are_told_apart_from_those_that_it_does() {
        const FLAT: &str = "VirtualDiskFlatVer2BackingInfo";
        const SIZE: &str = "<capacityInKB>1024</capacityInKB>";
        let mode = |mode: &str| format!("<diskMode>{mode}</diskMode>");
        for class in [
            FLAT,
            "VirtualDiskSeSparseBackingInfo",
            "VirtualDiskSparseVer2BackingInfo",
        ] {
            let fine = disk("<sharedBus>noSharing</sharedBus>", class, &mode("persistent"), SIZE);
            assert_eq!(obstacle(&fine), None, "{class}");
        }
        let largest = format!("<capacityInKB>{}</capacityInKB>", LARGEST >> 10);
        assert_eq!(obstacle(&disk("", FLAT, "", &largest)), None);
        let larger = format!("<capacityInKB>{}</capacityInKB>", (LARGEST >> 10) + 1);
        let independent = mode("independent_persistent");
        for (controller, class, backing, capacity, word) in [
            (
                "",
                "VirtualDiskRawDiskMappingVer1BackingInfo",
                "",
                SIZE,
                "raw device mapping",
            ),
            ("", FLAT, independent.as_str(), SIZE, "independent"),
            ("", FLAT, "<diskMode>nonpersistent</diskMode>", SIZE, "nonpersistent"),
            ("", FLAT, "<sharing>sharingMultiWriter</sharing>", SIZE, "several VMs"),
            ("<sharedBus>physicalSharing</sharedBus>", FLAT, "", SIZE, "bus"),
            ("", FLAT, "<keyId><keyId>k</keyId></keyId>", SIZE, "encrypted"),
            ("", FLAT, "", larger.as_str(), "62 TiB"),
            ("", FLAT, "", "", "size"),
            ("", "VirtualDiskLocalPMemBackingInfo", "", SIZE, "PMem"),
        ] {
            let (why, _) = obstacle(&disk(controller, class, backing, capacity)).unwrap();
            assert!(why.contains(word), "{why}");
        }
    }
}
