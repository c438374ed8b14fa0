//! Domain XML → the neutral model and what the source side needs.

use super::disk::{self, DiskXml};
use super::tree::Element;
use super::{AGENT_CHANNEL, NAMESPACE};
use crate::{Accel, Error, Firmware, Hardware, Kind, Nic, NicAttachment};

/// A domain as libvirt describes it, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The number that it has while it runs.
    pub id: Option<i32>,
    /// What it is made of, *without disks*: what the model says of a disk is half in the image, not in the domain
    /// ([`DiskXml::to_disk`]).
    pub hardware: Hardware,
    /// All its drives, in the order in which the guest finds them.
    pub disks: Vec<DiskXml>,
    /// The UID of the migration that made it.
    pub owner: Option<String>,
}

impl DomainXml {
    /// Reads the answer of `virDomainGetXMLDesc`. The hardware should be taken from the inactive description: the live one
    /// of a running domain has `host-model` replaced by what it stands for.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not XML, or lacks what every domain has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let root = Element::parse(text)
            .map_err(|error| Error::new(Kind::Invalid, "read", "the description of a domain").source(error))?;
        let required = |name: &str| {
            root.text_at(&[name]).map(str::to_owned).ok_or_else(|| {
                Error::new(Kind::Invalid, "read", "the description of a domain").detail(format!("it has no <{name}>"))
            })
        };
        let name = required("name")?;
        let hardware = hardware(&root, &name)?;
        let devices = root.child("devices");
        let mut disks: Vec<_> = devices
            .iter()
            .flat_map(|devices| devices.all("disk").map(move |disk| (devices, disk)))
            .filter_map(|(devices, disk)| DiskXml::read(devices, disk))
            .collect();
        disk::sort(&mut disks);
        Ok(Self {
            uuid: required("uuid")?,
            id: root.attr("id").and_then(|id| id.parse().ok()),
            hardware,
            disks,
            owner: owner(&root),
            name,
        })
    }
}

fn hardware(root: &Element, name: &str) -> Result<Hardware, Error> {
    let invalid = |what: &str| {
        Error::new(Kind::Invalid, "read", format!("the description of domain \"{name}\"")).detail(what.to_owned())
    };
    let os_type = root.at(&["os", "type"]);
    let attribute = |name| os_type.and_then(|os_type| os_type.attr(name)).map(str::to_owned);
    let devices = root.child("devices");
    Ok(Hardware {
        firmware: firmware(root),
        machine: attribute("machine"),
        arch: attribute("arch").ok_or_else(|| invalid("its <os> has no <type arch>"))?,
        accel: match root.attr("type") {
            Some("kvm") => Some(Accel::Hardware),
            Some("qemu") => Some(Accel::Emulation),
            _ => None,
        },
        vcpus: vcpus(root).ok_or_else(|| invalid("its <vcpu> is not a number above zero"))?,
        cpu_model: cpu_model(root),
        memory_bytes: root
            .child("memory")
            .and_then(memory_bytes)
            .ok_or_else(|| invalid("its <memory> is not a size"))?,
        disks: Vec::new(),
        nics: devices
            .iter()
            .flat_map(|devices| devices.all("interface"))
            .enumerate()
            .map(|(index, interface)| nic(index, interface))
            .collect(),
        guest_agent: devices
            .iter()
            .flat_map(|devices| devices.all("channel"))
            .any(|channel| channel.attr_at(&["target"], "name") == Some(AGENT_CHANNEL)),
        guest_os: None,
    })
}

/// Firmware comes as a word (`<os firmware='efi'>`), as a flash image, or, on old hosts, as a plain path.
fn firmware(root: &Element) -> Firmware {
    let loader = root.at(&["os", "loader"]);
    let path = loader.map(Element::text).unwrap_or_default().to_ascii_lowercase();
    let is_uefi = root.attr_at(&["os"], "firmware") == Some("efi")
        || loader.is_some_and(|loader| loader.attr("type") == Some("pflash"))
        || ["ovmf", "aavmf", "edk2"].iter().any(|word| path.contains(word));
    if !is_uefi {
        return Firmware::Bios;
    }
    let feature = |name: &str| {
        let firmware = root.at(&["os", "firmware"])?;
        let feature = firmware
            .all("feature")
            .find(|feature| feature.attr("name") == Some(name))?;
        feature.attr("enabled").map(|enabled| enabled == "yes")
    };
    let loaded = loader.is_some_and(|loader| loader.attr("secure") == Some("yes"));
    // A firmware that could enforce it does not as long as it has no keys.
    let has_keys = feature("enrolled-keys") != Some(false);
    Firmware::Uefi {
        secure_boot: has_keys && feature("secure-boot").unwrap_or(loaded),
    }
}

fn vcpus(root: &Element) -> Option<u32> {
    let vcpu = root.child("vcpu")?;
    let count = vcpu.attr("current").unwrap_or(vcpu.text());
    count.parse().ok().filter(|count| *count > 0)
}

fn cpu_model(root: &Element) -> Option<String> {
    let cpu = root.child("cpu")?;
    match cpu.attr("mode") {
        Some(mode @ ("host-passthrough" | "host-model" | "maximum")) => Some(mode.to_owned()),
        _ => cpu.text_at(&["model"]).map(str::to_owned),
    }
}

/// A scaled integer as libvirt writes it. Source: <https://libvirt.org/formatdomain.html#memory-allocation>.
fn memory_bytes(element: &Element) -> Option<u64> {
    let unit: u64 = match element.attr("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1000 * 1000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1000 * 1000 * 1000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    element.text().parse::<u64>().ok()?.checked_mul(unit)
}

fn nic(index: usize, interface: &Element) -> Nic {
    let kind = interface.attr("type").unwrap_or_default();
    let source = |name| interface.attr_at(&["source"], name).map(str::to_owned);
    let attachment = match kind {
        "network" => source("network").map(NicAttachment::Network),
        "bridge" => source("bridge").map(NicAttachment::Bridge),
        "user" => Some(NicAttachment::User),
        _ => None,
    };
    let other = || match source("dev") {
        Some(device) => NicAttachment::Other(format!("{kind} on {device}")),
        None => NicAttachment::Other(kind.to_owned()),
    };
    Nic {
        name: format!("eth{index}"),
        mac: interface
            .attr_at(&["mac"], "address")
            .unwrap_or_default()
            .to_ascii_lowercase(),
        model: interface.attr_at(&["model"], "type").map(str::to_owned),
        attachment: attachment.unwrap_or_else(other),
    }
}

/// The mark of ownership: an element in our namespace, whatever prefix libvirt gives it.
fn owner(root: &Element) -> Option<String> {
    root.child("metadata")?.children().iter().find_map(|element| {
        let (prefix, name) = element.name().split_once(':')?;
        let declared = element.attr(&format!("xmlns:{prefix}"));
        (name == "migration" && declared == Some(NAMESPACE))
            .then(|| element.attr("uid").map(str::to_owned))
            .flatten()
    })
}
