//! A VM's hardware as options of Proxmox VE.
//!
//! | the guest has its disk on | here |
//! | --- | --- |
//! | virtio-blk | `virtioN` |
//! | SCSI: virtio-scsi, or a controller that is not named | `scsiN`, `scsihw: virtio-scsi-single` |
//! | SCSI: PVSCSI, LSI 53C895A, MegaRAID SAS | `scsiN`, `scsihw: pvscsi`, `lsi`, `megasas` |
//! | SCSI: LSI SAS1068, LSI 53C1030, or a second model beside the first | `sataN`: QEMU has no such controller, or one VM one model only |
//! | SATA, USB | `sataN` |
//! | IDE | `ideN` |

use crate::proxmox::client::types::Version;
use crate::proxmox::config::{Bus, Slot, encode};
use crate::{Disk, DiskBus, Error, Firmware, Hardware, Kind, Nic, NicAttachment, ScsiController};

/// Since when there are CPU models by the level of their instructions.
const LEVELS: Version = Version::new(8, 0);
/// A serial number is cut there.
const SERIAL: usize = 20;
/// Interfaces that QEMU has and Proxmox VE takes.
const NICS: &[&str] = &[
    "virtio",
    "e1000",
    "e1000e",
    "rtl8139",
    "vmxnet3",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_pci",
    "pcnet",
];
/// What `ostype` takes.
const OSTYPES: &[&str] = &[
    "other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26", "solaris",
];

/// The slot of each disk, and the model of the SCSI controller.
pub(super) fn slots(disks: &[Disk]) -> Result<(Vec<Slot>, &'static str), Error> {
    let first = disks
        .iter()
        .filter(|disk| disk.bus == DiskBus::Scsi)
        .find_map(|disk| scsihw(disk.controller));
    let mut used = [0_u32; 4];
    let mut slots = Vec::with_capacity(disks.len());
    for disk in disks {
        let bus = match disk.bus {
            DiskBus::Virtio => Bus::Virtio,
            DiskBus::Scsi if scsihw(disk.controller) == first && first.is_some() => Bus::Scsi,
            DiskBus::Scsi | DiskBus::Sata | DiskBus::Usb => Bus::Sata,
            DiskBus::Ide => Bus::Ide,
        };
        let number = &mut used[bus as usize];
        if *number == bus.slots() {
            return Err(
                Error::new(Kind::Unsupported, "attach", format!("disk {:?}", disk.name)).detail(format!(
                    "a VM has at most {} {} disks in Proxmox VE",
                    bus.slots(),
                    bus.name()
                )),
            );
        }
        slots.push(Slot { bus, number: *number });
        *number += 1;
    }
    Ok((slots, first.unwrap_or("virtio-scsi-single")))
}

fn scsihw(controller: Option<ScsiController>) -> Option<&'static str> {
    match controller {
        None | Some(ScsiController::Virtio) => Some("virtio-scsi-single"),
        Some(ScsiController::Pvscsi) => Some("pvscsi"),
        Some(ScsiController::Lsi53c895a) => Some("lsi"),
        Some(ScsiController::Megasas) => Some("megasas"),
        Some(ScsiController::LsiSas1068 | ScsiController::Lsi53c1030) => None,
    }
}

/// Options of a disk beside its volume.
pub(super) fn drive_options(disk: &Disk, slot: Slot, scsihw: &str) -> String {
    let mut options = String::new();
    if slot.bus == Bus::Virtio || (slot.bus == Bus::Scsi && scsihw == "virtio-scsi-single") {
        options.push_str(",iothread=1");
    }
    if let Some(serial) = disk.serial.as_deref().filter(|serial| !serial.is_empty()) {
        let cut: String = serial.chars().filter(char::is_ascii_graphic).take(SERIAL).collect();
        if !cut.is_empty() {
            options.push_str(",serial=");
            options.push_str(&encode(&cut));
        }
    }
    options
}

/// `order=scsi0;scsi1`: the disks that say a place, in its order; the first where none does. All of them are named only where they
/// boot in the order in which the guest finds them: otherwise they would seem to be in another.
pub(super) fn boot(disks: &[Disk], slots: &[Slot]) -> String {
    let mut order: Vec<_> = disks
        .iter()
        .zip(slots)
        .filter_map(|(disk, slot)| Some((disk.boot_order?, *slot)))
        .collect();
    order.sort_unstable();
    let mut order: Vec<_> = order.into_iter().map(|(_, slot)| slot).collect();
    let buses = slots.windows(2).filter(|pair| pair[0].bus != pair[1].bus).count() + 1;
    let distinct = Bus::ALL
        .iter()
        .filter(|bus| slots.iter().any(|slot| slot.bus == **bus))
        .count();
    if order.is_empty() {
        order.extend(slots.first());
    }
    if buses > distinct && order.first() == slots.first() {
        // Disks of one bus are not side by side: only this tells their order.
        order = slots.to_vec();
    } else if order.len() == slots.len() && order != slots {
        order.pop();
    }
    let names: Vec<_> = order.iter().map(ToString::to_string).collect();
    format!("order={}", names.join(";"))
}

/// All options but name, tags and disks.
pub(super) fn options(
    hardware: &Hardware,
    scsihw: &str,
    version: Version,
    efi_storage: &str,
    bridges: &[String],
    default_bridge: Option<&str>,
) -> Result<Vec<(String, String)>, Error> {
    if !matches!(hardware.arch.as_str(), "x86_64" | "amd64") {
        return Err(Error::new(
            Kind::Unsupported,
            "make",
            format!("a VM of architecture {}", hardware.arch),
        )
        .detail("Proxmox VE runs x86_64"));
    }
    let mut options: Vec<(&str, String)> = vec![
        ("cores", hardware.vcpus.max(1).to_string()),
        ("sockets", "1".to_owned()),
        ("memory", hardware.memory_bytes.div_ceil(1 << 20).max(16).to_string()),
        ("scsihw", scsihw.to_owned()),
        ("ostype", ostype(hardware.guest_os.as_deref()).to_owned()),
        (
            "agent",
            if hardware.guest_agent { "enabled=1" } else { "enabled=0" }.to_owned(),
        ),
    ];
    let is_q35 = hardware
        .machine
        .as_deref()
        .is_some_and(|machine| machine.contains("q35"));
    if let Firmware::Uefi { secure_boot } = hardware.firmware {
        let keys = u8::from(secure_boot);
        options.push(("bios", "ovmf".to_owned()));
        options.push((
            "efidisk0",
            format!("{efi_storage}:1,efitype=4m,pre-enrolled-keys={keys}"),
        ));
        if is_q35 || secure_boot || hardware.machine.is_none() {
            options.push(("machine", "q35".to_owned()));
        }
    } else if is_q35 {
        options.push(("machine", "q35".to_owned()));
    }
    if let Some(cpu) = cpu(hardware.cpu_model.as_deref(), version) {
        options.push(("cpu", cpu.to_owned()));
    }
    let mut options: Vec<_> = options
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    for (index, nic) in hardware.nics.iter().enumerate() {
        options.push((format!("net{index}"), net(nic, bridges, default_bridge)?));
    }
    Ok(options)
}

/// The host's processor where the source has its host's; else what every processor of the last fifteen years has.
fn cpu(model: Option<&str>, version: Version) -> Option<&'static str> {
    match model {
        Some("host-passthrough" | "host-model" | "host") => Some("host"),
        _ if version >= LEVELS => Some("x86-64-v2-AES"),
        _ => None,
    }
}

fn ostype(guest: Option<&str>) -> &'static str {
    let guest = guest.unwrap_or("l26");
    if let Some(own) = OSTYPES.iter().find(|own| **own == guest) {
        return own;
    }
    let guest = guest.to_ascii_lowercase();
    let is = |parts: &[&str]| parts.iter().any(|part| guest.contains(part));
    if !is(&["win"]) || is(&["darwin"]) {
        return if is(&["solaris"]) {
            "solaris"
        } else if is(&["dos", "netware", "os2", "bsd", "darwin"]) {
            "other"
        } else {
            "l26"
        };
    }
    let versions: [(&[&str], &str); 6] = [
        (
            &["windows11", "windows12", "2022", "2025", "srvnext", "server-2022"],
            "win11",
        ),
        (&["windows9", "windows10", "2016", "2019"], "win10"),
        (&["windows8", "2012"], "win8"),
        (&["windows7", "2008r2"], "win7"),
        (&["longhorn", "2008", "vista"], "w2k8"),
        (&["xp", "2003", "net"], "wxp"),
    ];
    versions
        .iter()
        .find(|(parts, _)| is(parts))
        .map_or("win10", |(_, own)| own)
}

fn net(nic: &Nic, bridges: &[String], default_bridge: Option<&str>) -> Result<String, Error> {
    let model = nic.model.as_deref().unwrap_or("virtio");
    let model = NICS.iter().find(|known| **known == model).copied().unwrap_or("e1000");
    let mac = nic.mac.to_ascii_uppercase();
    let attached = Bridge::of(&nic.attachment, bridges, default_bridge)?;
    Ok(match attached {
        None => format!("{model}={mac}"),
        Some(Bridge { name, tag: None }) => format!("{model}={mac},bridge={name}"),
        Some(Bridge { name, tag: Some(tag) }) => format!("{model}={mac},bridge={name},tag={tag}"),
    })
}

/// A bridge or vnet, and a VLAN tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub name: String,
    pub tag: Option<u16>,
}

impl Bridge {
    /// What an attachment means here; `None` for user-mode networking. A name that there is, `known`, is taken as it is; else what
    /// stands behind its last dot or colon is a VLAN tag.
    pub fn of(attachment: &NicAttachment, known: &[String], default: Option<&str>) -> Result<Option<Self>, Error> {
        let text = match attachment {
            NicAttachment::Bridge(name) | NicAttachment::Network(name) => name,
            NicAttachment::User => return Ok(None),
            NicAttachment::Other(what) => match default {
                Some(bridge) => bridge,
                None => {
                    return Err(
                        Error::new(Kind::Unsupported, "attach", format!("a network interface to {what}"))
                            .detail("only bridges and SDN vnets are there")
                            .remedy("name one of them in spec.targetNetworkHints"),
                    );
                }
            },
        };
        let tagged = text.rsplit_once(['.', ':']).and_then(|(name, tag)| {
            let tag = tag.parse::<u16>().ok().filter(|tag| (1..4095).contains(tag))?;
            Some((name, tag))
        });
        let is_known = known.iter().any(|name| name == text);
        let (name, tag) = match tagged {
            Some((name, tag)) if !is_known => (name, Some(tag)),
            _ => (text, None),
        };
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_name {
            return Ok(Some(Self {
                name: name.to_owned(),
                tag,
            }));
        }
        Err(Error::new(Kind::Invalid, "use", format!("the network {text:?}"))
            .detail("it is not the name of a bridge or vnet")
            .remedy("name one in spec.targetNetworkHints, with a VLAN tag as BRIDGE.TAG"))
    }
}

#[cfg(test)]
mod tests;
