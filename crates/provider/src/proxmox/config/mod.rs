//! A VM's configuration in the neutral model.

mod boot;
mod drive;
mod net;
mod property;

use std::collections::BTreeMap;

pub(crate) use drive::{Bus, Drive, Slot};
pub(crate) use property::{Properties, encode, is_on};

use crate::{Accel, Disk, Firmware, Hardware, Nic, ScsiController};

/// Memory of a VM that says none, in MiB.
const DEFAULT_MEMORY: u64 = 512;

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmConfig {
    /// Its name.
    pub(crate) name: Option<String>,
    /// Its disks, in the order in which the guest finds them: without CD-ROMs and what belongs to the firmware or a TPM.
    pub(crate) disks: Vec<Drive>,
    /// The variables of the firmware.
    pub(crate) efidisk: Option<Drive>,
    /// The state of a TPM.
    pub(crate) tpm: Option<Drive>,
    /// Volumes that it has and does not use: option and volume.
    pub(crate) unused: Vec<(String, String)>,
    /// Who holds it: `backup`, `create`, `migrate`, …
    pub(crate) lock: Option<String>,
    /// Its tags.
    pub(crate) tags: String,
    /// What is written to it.
    pub(crate) description: String,
    /// Whether it is protected from being deleted.
    pub(crate) is_protected: bool,
    /// What it is made of. The disks are in the order of [`disks`](Self::disks); one whose size is not written down has 0.
    pub(crate) hardware: Hardware,
}

impl VmConfig {
    /// Reads the options of a configuration. Nothing in it is refused here: what cannot be carried over is for others to say.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let drive = |name: &str| Drive::parse(name, get(name)?);
        let mut slots: Vec<Slot> = Vec::new();
        for name in options.keys() {
            if let Some(slot) = Slot::parse(name)
                && drive(name).is_some_and(|drive| !drive.is_cdrom)
            {
                slots.push(slot);
            }
        }
        let order = boot::order(get("boot"), get("bootdisk"), &slots);
        boot::sort(&mut slots, &order);
        let disks: Vec<Drive> = slots.iter().filter_map(|slot| drive(&slot.to_string())).collect();
        let controller = controller(get("scsihw"));
        let model = slots.iter().zip(&disks).map(|(slot, drive)| Disk {
            name: slot.to_string(),
            bus: slot.bus.model(),
            controller: (slot.bus == Bus::Scsi).then_some(controller).flatten(),
            format: drive.format,
            capacity: drive.size.unwrap_or(0),
            serial: drive.serial.clone(),
            boot_order: order
                .iter()
                .position(|other| other == slot)
                .and_then(|place| u32::try_from(place + 1).ok()),
        });
        let efidisk = drive("efidisk0");
        let unused = options.iter().filter(|(name, _)| is_numbered(name, "unused"));
        Self {
            name: get("name").map(str::to_owned),
            tpm: drive("tpmstate0"),
            unused: unused.map(|(name, volume)| (name.clone(), volume.clone())).collect(),
            lock: get("lock").map(str::to_owned),
            tags: get("tags").unwrap_or_default().to_owned(),
            description: get("description").unwrap_or_default().to_owned(),
            is_protected: get("protection").is_some_and(is_on),
            hardware: Hardware {
                firmware: firmware(get("bios"), efidisk.as_ref()),
                machine: Some(machine(get("machine"))),
                arch: get("arch").unwrap_or("x86_64").to_owned(),
                accel: Some(if get("kvm").is_none_or(is_on) {
                    Accel::Hardware
                } else {
                    Accel::Emulation
                }),
                vcpus: number(get("sockets"), 1).saturating_mul(number(get("cores"), 1)),
                cpu_model: cpu(get("cpu")),
                memory_bytes: memory(get("memory")),
                disks: model.collect(),
                nics: nics(options),
                guest_agent: get("agent")
                    .is_some_and(|text| Properties::parse(text).first_or("enabled").is_some_and(is_on)),
                guest_os: get("ostype").map(str::to_owned),
            },
            efidisk,
            disks,
        }
    }
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn firmware(bios: Option<&str>, efidisk: Option<&Drive>) -> Firmware {
    if bios == Some("ovmf") {
        let secure_boot = efidisk.is_some_and(|drive| drive.has_keys);
        return Firmware::Uefi { secure_boot };
    }
    Firmware::Bios
}

/// The model behind `scsihw`; an LSI 53C895A where it is not said.
fn controller(scsihw: Option<&str>) -> Option<ScsiController> {
    Some(match scsihw.unwrap_or("lsi") {
        // An 810 is driven by the same driver as an 895A.
        "lsi" | "lsi53c810" => ScsiController::Lsi53c895a,
        "megasas" => ScsiController::Megasas,
        "pvscsi" => ScsiController::Pvscsi,
        "virtio-scsi-pci" | "virtio-scsi-single" => ScsiController::Virtio,
        _ => return None,
    })
}

/// The machine type; an i440FX where it is not said.
fn machine(text: Option<&str>) -> String {
    let properties = Properties::parse(text.unwrap_or_default());
    properties.first_or("type").unwrap_or("pc").to_owned()
}

/// The CPU model, where another hypervisor can know it: not one of those that Proxmox VE or its user made up.
fn cpu(text: Option<&str>) -> Option<String> {
    let properties = Properties::parse(text?);
    match properties.first_or("cputype")? {
        "host" => Some("host-passthrough".to_owned()),
        "max" => None,
        own if own.starts_with("custom-") || own.starts_with("x86-64-v") => None,
        model => Some(model.to_owned()),
    }
}

fn number(text: Option<&str>, default: u32) -> u32 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(default)
}

/// `2048`, or `current=2048`, in MiB.
fn memory(text: Option<&str>) -> u64 {
    let properties = Properties::parse(text.unwrap_or_default());
    let mib = properties.first_or("current").and_then(|text| text.parse::<u64>().ok());
    mib.unwrap_or(DEFAULT_MEMORY).saturating_mul(1 << 20)
}

fn nics(options: &BTreeMap<String, String>) -> Vec<Nic> {
    let mut found: Vec<(u32, &str)> = options
        .iter()
        .filter(|(name, _)| is_numbered(name, "net"))
        .filter_map(|(name, text)| Some((name["net".len()..].parse().ok()?, text.as_str())))
        .collect();
    found.sort_unstable();
    let mut nics = Vec::new();
    for (_, text) in found {
        nics.extend(net::parse(nics.len(), text));
    }
    nics
}

#[cfg(test)]
mod tests;
