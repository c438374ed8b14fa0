//! A VM's hardware in the neutral model.

use super::VmInfo;
use super::device::{Bus, NicNetwork, VirtualDisk, VirtualNic};
use crate::vsphere::client::{Client, Object, unescape};
use crate::{Disk, DiskBus, Error, Hardware, ImageFormat, Kind, Nic, NicAttachment, ScsiController};

/// The hardware of a VM, with the names of its networks.
pub(crate) async fn hardware(client: &Client, vm: &VmInfo) -> Result<Hardware, Error> {
    let networks = Networks::read(client, vm).await?;
    let nics = vm
        .nics
        .iter()
        .enumerate()
        .map(|(at, nic)| neutral_nic(at, nic, &networks));
    Ok(Hardware {
        firmware: vm.firmware,
        machine: None,
        arch: arch(vm.guest_id.as_deref()).to_owned(),
        accel: None,
        vcpus: vm.cpus,
        cpu_model: None,
        memory_bytes: vm.memory_mib << 20,
        disks: vm.disks.iter().map(|disk| neutral_disk(disk, &vm.boot_order)).collect(),
        nics: nics.collect(),
        guest_agent: vm.has_tools,
        guest_os: vm.guest_id.clone(),
    })
}

/// ESXi on ARM runs guests whose ids begin so; all others are x86.
fn arch(guest_id: Option<&str>) -> &'static str {
    match guest_id {
        Some(id) if id.starts_with("arm") => "aarch64",
        _ => "x86_64",
    }
}

fn neutral_disk(disk: &VirtualDisk, boot_order: &[i64]) -> Disk {
    let place = boot_order.iter().position(|key| *key == disk.key);
    let class = disk.controller.as_ref().map(|controller| controller.class.as_str());
    Disk {
        name: disk.name(),
        bus: match disk.controller.as_ref().map(|controller| controller.bus) {
            Some(Bus::Ide) => DiskBus::Ide,
            // A guest that boots from NVMe has a driver for SATA too, and hardly any without one can be met.
            Some(Bus::Sata | Bus::Nvme) => DiskBus::Sata,
            Some(Bus::Scsi) | None => DiskBus::Scsi,
        },
        controller: match class {
            Some("ParaVirtualSCSIController") => Some(ScsiController::Pvscsi),
            Some("VirtualLsiLogicSASController") => Some(ScsiController::LsiSas1068),
            Some("VirtualLsiLogicController") => Some(ScsiController::Lsi53c1030),
            _ => None,
        },
        format: ImageFormat::Vmdk,
        capacity: disk.capacity,
        serial: None,
        boot_order: place.and_then(|place| u32::try_from(place + 1).ok()),
    }
}

fn neutral_nic(at: usize, nic: &VirtualNic, networks: &Networks) -> Nic {
    Nic {
        name: format!("eth{at}"),
        mac: nic.mac.to_lowercase().replace('-', ":"),
        model: match nic.class.as_str() {
            "VirtualVmxnet3" | "VirtualVmxnet3Vrdma" => Some("vmxnet3"),
            "VirtualVmxnet2" => Some("vmxnet2"),
            "VirtualVmxnet" => Some("vmxnet"),
            "VirtualE1000" => Some("e1000"),
            "VirtualE1000e" => Some("e1000e"),
            "VirtualPCNet32" => Some("pcnet"),
            _ => None,
        }
        .map(str::to_owned),
        attachment: networks.attachment(&nic.network),
    }
}

/// The networks that a VM is attached to, with their names.
struct Networks {
    known: Vec<Object>,
}

impl Networks {
    /// Reads those that an interface names by another thing than its name.
    async fn read(client: &Client, vm: &VmInfo) -> Result<Self, Error> {
        let mut known = Vec::new();
        let wants = |kind: &str| {
            vm.nics.iter().any(|nic| match nic.network {
                NicNetwork::Portgroup(_) => kind == "DistributedVirtualPortgroup",
                NicNetwork::Opaque(_) => kind == "OpaqueNetwork",
                NicNetwork::Named(_) | NicNetwork::Unknown => false,
            })
        };
        for (kind, paths) in [
            ("DistributedVirtualPortgroup", &["name"][..]),
            ("OpaqueNetwork", &["name", "summary"][..]),
        ] {
            let morefs: Vec<_> = vm
                .networks
                .iter()
                .filter(|network| network.kind == kind)
                .cloned()
                .collect();
            if !wants(kind) || morefs.is_empty() {
                continue;
            }
            match client.properties_of(&morefs, paths).await {
                Ok(found) => known.extend(found),
                // The user may not see them: then a hint has to say what the interface is to be attached to.
                Err(trouble) if trouble.kind == Kind::Denied => {}
                Err(trouble) => return Err(trouble.of("read the networks of", &vm.object)),
            }
        }
        Ok(Self { known })
    }

    fn attachment(&self, network: &NicNetwork) -> NicAttachment {
        let name = |found: Option<&Object>| found.and_then(|found| found.props.text("name")).map(unescape);
        let (name, words) = match network {
            NicNetwork::Named(name) => (Some(unescape(name)), String::new()),
            NicNetwork::Portgroup(moref) => {
                let found = self.known.iter().find(|found| found.moref == *moref);
                (name(found), format!("distributed portgroup {}", moref.value))
            }
            NicNetwork::Opaque(id) => {
                let is_it = |found: &&Object| {
                    let summary = found.props.get("summary");
                    summary.and_then(|summary| summary.text_at("opaqueNetworkId")) == Some(id)
                };
                (name(self.known.iter().find(is_it)), format!("opaque network {id}"))
            }
            NicNetwork::Unknown => (None, "a network that the server does not name".to_owned()),
        };
        name.map_or(NicAttachment::Other(words), NicAttachment::Network)
    }
}
