//! Specifications of VMs and devices, with their properties in the order of VMware's schema.

use super::guest::{ANY_GUEST, Slot, adapter};
use super::place::Network;
use crate::vsphere::soap::Arg;
use crate::{Firmware, Hardware, Nic};

/// The option that says whose a VM is.
pub(super) const UID: &str = "vmferry.uid";
/// The option of a carrier that says where its disk lies once it is detached.
pub(super) const DISK: &str = "vmferry.disk";
/// The option of a VM that says how many disks it is to have.
pub(super) const DISKS: &str = "vmferry.disks";

/// vSphere wants memory in multiples of this many MiB.
const MEMORY_STEP: u64 = 4;

/// A further option of a VM.
pub(super) fn option(key: &str, value: &str) -> Arg {
    Arg::typed(
        "extraConfig",
        "OptionValue",
        [Arg::text("key", key), Arg::any("value", "xsd:string", value)],
    )
}

fn files(datastore: &str) -> Arg {
    Arg::object("files", [Arg::text("vmPathName", format!("[{datastore}]"))])
}

/// A VM that carries one disk of `capacity` bytes, as an `ImportSpec` named `spec`.
pub(super) fn carrier(name: &str, datastore: &str, capacity: u64, uid: &str) -> Arg {
    let slot = Slot {
        class: super::guest::Class::LsiLogic,
        bus: 0,
        unit: 0,
    };
    let backing = Arg::typed(
        "backing",
        "VirtualDiskFlatVer2BackingInfo",
        [
            Arg::text("fileName", ""),
            Arg::text("diskMode", "persistent"),
            Arg::text("thinProvisioned", true),
        ],
    );
    let disk = disk(-1, backing, slot.controller_key().into(), slot.unit, capacity);
    let config = Arg::object(
        "configSpec",
        [
            Arg::text("name", name),
            Arg::text("guestId", ANY_GUEST),
            Arg::text(
                "annotation",
                format!("A disk on its way, imported by vmferry for the migration {uid}."),
            ),
            files(datastore),
            Arg::text("numCPUs", 1),
            Arg::text("memoryMB", 128),
            change("add", None, controller(slot)),
            change("add", Some("create"), disk),
            option(UID, uid),
        ],
    );
    Arg::typed("spec", "VirtualMachineImportSpec", [config])
}

/// A VM without disks, as a `VirtualMachineConfigSpec` named `config`.
pub(super) struct NewVm<'a> {
    pub name: &'a str,
    pub guest_id: &'a str,
    pub datastore: &'a str,
    pub hardware: &'a Hardware,
    pub slots: &'a [Slot],
    pub networks: &'a [Network],
    pub uid: &'a str,
}

impl NewVm<'_> {
    pub fn config(&self) -> Arg {
        let mebibytes = self.hardware.memory_bytes.div_ceil(1 << 20).max(1);
        let mut properties = vec![
            Arg::text("name", self.name),
            Arg::text("guestId", self.guest_id),
            files(self.datastore),
            Arg::text("numCPUs", self.hardware.vcpus),
            Arg::text("memoryMB", mebibytes.next_multiple_of(MEMORY_STEP)),
        ];
        properties.extend(self.controllers());
        let nics = self.hardware.nics.iter().zip(self.networks).zip(0..);
        properties.extend(nics.map(|((nic, network), at)| change("add", None, card(nic, network, at))));
        properties.push(option(UID, self.uid));
        properties.push(option(DISKS, &self.slots.len().to_string()));
        let reserved = self
            .hardware
            .nics
            .iter()
            .enumerate()
            .filter(|(_, nic)| is_reserved(&nic.mac));
        properties.extend(reserved.map(|(at, _)| option(&format!("ethernet{at}.checkMACAddress"), "FALSE")));
        if let Some(secure_boot) = secure_boot(self.hardware) {
            properties.push(Arg::object("bootOptions", [secure_boot]));
        }
        let firmware = match self.hardware.firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi { .. } => "efi",
        };
        properties.push(Arg::text("firmware", firmware));
        Arg::object("config", properties)
    }

    /// Every VM has its IDE controllers by itself.
    fn controllers(&self) -> Vec<Arg> {
        let mut made: Vec<u32> = Vec::new();
        let mut changes = Vec::new();
        for slot in self.slots {
            let key = slot.controller_key();
            if slot.class != super::guest::Class::Ide && !made.contains(&key) {
                made.push(key);
                changes.push(change("add", None, controller(*slot)));
            }
        }
        changes
    }
}

/// Whether vSphere takes an address for one that only it may give: VMware's own, but for those set aside for users.
fn is_reserved(mac: &str) -> bool {
    let mac = mac.to_ascii_lowercase();
    let user = |byte: &str| u8::from_str_radix(byte, 16).is_ok_and(|byte| byte <= 0x3f);
    match mac.strip_prefix("00:50:56:") {
        Some(rest) => !rest.get(..2).is_some_and(user),
        None => mac.starts_with("00:0c:29:"),
    }
}

fn secure_boot(hardware: &Hardware) -> Option<Arg> {
    match hardware.firmware {
        Firmware::Uefi { secure_boot: true } => Some(Arg::text("efiSecureBootEnabled", true)),
        Firmware::Uefi { secure_boot: false } | Firmware::Bios => None,
    }
}

/// Has the VM boot from these disks, in this order.
pub(super) fn boot(hardware: &Hardware, keys: &[i64]) -> Arg {
    let mut options: Vec<Arg> = secure_boot(hardware).into_iter().collect();
    options.extend(keys.iter().map(|key| {
        let device = [Arg::text("deviceKey", key)];
        Arg::typed("bootOrder", "VirtualMachineBootOptionsBootableDiskDevice", device)
    }));
    Arg::object("spec", [Arg::object("bootOptions", options)])
}

fn controller(slot: Slot) -> Arg {
    let mut properties = vec![
        Arg::text("key", slot.controller_key()),
        Arg::text("busNumber", slot.bus),
    ];
    if slot.class.is_scsi() {
        properties.push(Arg::text("sharedBus", "noSharing"));
    }
    Arg::typed("device", slot.class.schema_type(), properties)
}

fn card(nic: &Nic, network: &Network, at: i64) -> Arg {
    let connectable = Arg::object(
        "connectable",
        [
            Arg::text("startConnected", true),
            Arg::text("allowGuestControl", true),
            Arg::text("connected", true),
        ],
    );
    Arg::typed(
        "device",
        adapter(nic.model.as_deref()),
        [
            Arg::text("key", -100 - at),
            network.backing(),
            connectable,
            Arg::text("addressType", "manual"),
            Arg::text("macAddress", &nic.mac),
        ],
    )
}

/// A disk; its size in bytes.
fn disk(key: i64, backing: Arg, controller: i64, unit: u32, capacity: u64) -> Arg {
    Arg::typed(
        "device",
        "VirtualDisk",
        [
            Arg::text("key", key),
            backing,
            Arg::text("controllerKey", controller),
            Arg::text("unitNumber", unit),
            Arg::text("capacityInKB", capacity.div_ceil(1024)),
            Arg::text("capacityInBytes", capacity),
        ],
    )
}

fn change(operation: &str, file: Option<&str>, device: Arg) -> Arg {
    let mut properties = vec![Arg::text("operation", operation)];
    properties.extend(file.map(|operation| Arg::text("fileOperation", operation)));
    properties.push(device);
    Arg::object("deviceChange", properties)
}

fn flat(path: &str) -> Arg {
    Arg::typed(
        "backing",
        "VirtualDiskFlatVer2BackingInfo",
        [Arg::text("fileName", path), Arg::text("diskMode", "persistent")],
    )
}

/// Attaches a disk that exists, of `capacity` bytes.
pub(super) fn attach(path: &str, controller: i64, unit: u32, capacity: u64) -> Arg {
    Arg::object(
        "spec",
        [change("add", None, disk(-1, flat(path), controller, unit, capacity))],
    )
}

/// A disk of a VM, as it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    pub key: i64,
    pub controller: i64,
    pub unit: u32,
    pub path: String,
    /// Virtual size in bytes.
    pub capacity: u64,
}

/// Makes a disk larger.
pub(super) fn grow(to: &Attached) -> Arg {
    let device = disk(to.key, flat(&to.path), to.controller, to.unit, to.capacity);
    Arg::object("spec", [change("edit", None, device)])
}

/// Detaches a disk and keeps its file, whose place is noted.
pub(super) fn detach(attached: &Attached) -> Arg {
    let device = disk(
        attached.key,
        flat(&attached.path),
        attached.controller,
        attached.unit,
        attached.capacity,
    );
    Arg::object("spec", [change("remove", None, device), option(DISK, &attached.path)])
}

/// What a device is attached to, for whoever writes its backing.
impl Network {
    fn backing(&self) -> Arg {
        match self {
            Self::Standard { moref, name } => Arg::typed(
                "backing",
                "VirtualEthernetCardNetworkBackingInfo",
                [Arg::text("deviceName", name), Arg::moref("network", moref)],
            ),
            Self::Distributed { switch, portgroup } => Arg::typed(
                "backing",
                "VirtualEthernetCardDistributedVirtualPortBackingInfo",
                [Arg::object(
                    "port",
                    [Arg::text("switchUuid", switch), Arg::text("portgroupKey", portgroup)],
                )],
            ),
            Self::Opaque { id, kind } => Arg::typed(
                "backing",
                "VirtualEthernetCardOpaqueNetworkBackingInfo",
                [Arg::text("opaqueNetworkId", id), Arg::text("opaqueNetworkType", kind)],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_vsphere_gives_itself_are_reserved() {
        for (mac, reserved) in [
            ("00:50:56:00:00:01", false),
            ("00:50:56:3F:ff:ff", false),
            ("00:50:56:40:00:00", true),
            ("00:50:56:9a:00:01", true),
            ("00:0C:29:00:00:01", true),
            ("52:54:00:00:00:01", false),
            ("00:50:56:", true),
        ] {
            assert_eq!(is_reserved(mac), reserved, "{mac}");
        }
    }
}
