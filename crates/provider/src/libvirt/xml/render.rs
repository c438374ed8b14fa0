//! The neutral model → domain XML.

use super::disk::{bus_name, prefix};
use super::scsi::{self, Controllers};
use super::tree::{Element, XmlError};
use super::{AGENT_CHANNEL, NAMESPACE};
use crate::{Disk, DiskBus, Firmware, Hardware, ImageFormat, Nic, NicAttachment, Owner};

/// On what the domain is put: decided from what the host can run ([`super::caps::Capabilities::place`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `<domain type>`: `kvm` or `qemu`.
    pub domain_type: &'static str,
    /// Machine type; `None` is the host's default.
    pub machine: Option<String>,
}

/// The domain XML of a VM whose disks are the files `volumes` (path and format, in the order of its disks), with the
/// mark of its owner.
///
/// # Errors
/// Where a value holds what XML cannot carry.
pub fn render(
    name: &str,
    hardware: &Hardware,
    volumes: &[(String, ImageFormat)],
    platform: &Platform,
    owner: &Owner,
) -> Result<String, XmlError> {
    let mark = Element::new("vmferry:migration")
        .with("xmlns:vmferry", NAMESPACE)
        .with("uid", &owner.uid);
    Element::new("domain")
        .with("type", platform.domain_type)
        .child_of(Element::new("name").text_of(name))
        .child_of(Element::new("metadata").child_of(mark))
        .child_of(
            Element::new("memory")
                .with("unit", "bytes")
                .text_of(hardware.memory_bytes.to_string()),
        )
        .child_of(Element::new("vcpu").text_of(hardware.vcpus.to_string()))
        .child_of(os(hardware, platform))
        .children_of(features(hardware))
        .children_of(cpu(hardware, platform))
        .child_of(Element::new("clock").with("offset", "utc"))
        .child_of(Element::new("on_poweroff").text_of("destroy"))
        .child_of(Element::new("on_reboot").text_of("restart"))
        .child_of(Element::new("on_crash").text_of("destroy"))
        .child_of(devices(hardware, volumes))
        .render()
}

/// How it boots. A UEFI guest gets fresh variables: without enrolled keys unless Secure Boot is asked for, so that what
/// is not signed boots too.
fn os(hardware: &Hardware, platform: &Platform) -> Element {
    let mut kind = Element::new("type").with("arch", &hardware.arch);
    if let Some(machine) = &platform.machine {
        kind = kind.with("machine", machine);
    }
    let os = Element::new("os");
    let feature = |name, enabled| Element::new("feature").with("enabled", enabled).with("name", name);
    let wanted = match hardware.firmware {
        Firmware::Bios => return os.child_of(kind.text_of("hvm")),
        Firmware::Uefi { secure_boot: true } => vec![feature("secure-boot", "yes"), feature("enrolled-keys", "yes")],
        Firmware::Uefi { secure_boot: false } => vec![feature("enrolled-keys", "no")],
    };
    os.with("firmware", "efi")
        .child_of(kind.text_of("hvm"))
        .child_of(Element::new("firmware").children_of(wanted))
}

/// ACPI, and what secure boot needs. ACPI is a must for x86 guests and needs UEFI elsewhere.
fn features(hardware: &Hardware) -> Option<Element> {
    let is_x86 = is_x86(hardware);
    let is_uefi = hardware.firmware != Firmware::Bios;
    let mut features = Vec::new();
    if is_x86 || (is_uefi && hardware.arch == "aarch64") {
        features.push(Element::new("acpi"));
    }
    if is_x86 {
        features.push(Element::new("apic"));
    }
    (!features.is_empty()).then(|| Element::new("features").children_of(features))
}

fn is_x86(hardware: &Hardware) -> bool {
    matches!(hardware.arch.as_str(), "x86_64" | "i686")
}

/// The processor. Emulation has no host processor to pass through: its counterpart is all that QEMU can emulate. A VM of another
/// hypervisor, which names neither a model nor a machine, gets the host's: libvirt's default is too old for today's systems.
fn cpu(hardware: &Hardware, platform: &Platform) -> Option<Element> {
    let is_foreign = hardware.machine.is_none() && is_x86(hardware);
    let default = is_foreign
        .then_some("host-passthrough")
        .filter(|_| platform.domain_type == "qemu");
    let default = default.or_else(|| is_foreign.then_some("host-model"));
    let model = hardware.cpu_model.as_deref().or(default)?;
    let cpu = Element::new("cpu");
    Some(match (model, platform.domain_type) {
        ("host-passthrough", "qemu") => cpu.with("mode", "maximum"),
        ("host-passthrough" | "host-model" | "maximum", _) => cpu.with("mode", model),
        _ => cpu
            .with("mode", "custom")
            .with("match", "exact")
            .child_of(Element::new("model").with("fallback", "allow").text_of(model)),
    })
}

fn devices(hardware: &Hardware, volumes: &[(String, ImageFormat)]) -> Element {
    let targets = targets(&hardware.disks);
    let boot = boot_orders(&hardware.disks);
    let disks = hardware.disks.iter().zip(volumes).zip(targets.iter().zip(&boot));
    let controllers = Controllers::of(&hardware.disks);
    let serial = Element::new("serial")
        .with("type", "pty")
        .child_of(Element::new("target").with("port", "0"));
    let console = Element::new("console")
        .with("type", "pty")
        .child_of(Element::new("target").with("type", "serial").with("port", "0"));
    let agent = Element::new("channel").with("type", "unix").child_of(
        Element::new("target")
            .with("type", "virtio")
            .with("name", AGENT_CHANNEL),
    );
    Element::new("devices")
        .children_of(disks.enumerate().map(|(index, ((disk, volume), (target, order)))| {
            disk_of(disk, volume, target, *order).children_of(controllers.address(index))
        }))
        .children_of(controllers.elements())
        .children_of(hardware.nics.iter().map(nic))
        .children_of(is_x86(hardware).then_some(serial))
        .children_of(is_x86(hardware).then_some(console))
        .children_of(hardware.guest_agent.then_some(agent))
}

fn disk_of(disk: &Disk, (path, format): &(String, ImageFormat), target: &str, order: Option<u32>) -> Element {
    let boot = order.map(|order| Element::new("boot").with("order", order.to_string()));
    let serial = disk
        .serial
        .as_ref()
        .map(|serial| Element::new("serial").text_of(serial));
    Element::new("disk")
        .with("type", "file")
        .with("device", "disk")
        .child_of(
            Element::new("driver")
                .with("name", "qemu")
                .with("type", format.as_str())
                .with("discard", "unmap"),
        )
        .child_of(Element::new("source").with("file", path))
        .child_of(
            Element::new("target")
                .with("dev", target)
                .with("bus", bus_name(scsi::bus(disk))),
        )
        .children_of(serial)
        .children_of(boot)
}

/// Target names: the source's own where they fit the bus and are free, so that the guest finds its disks in the same
/// order; else the next free one.
fn targets(disks: &[Disk]) -> Vec<String> {
    let fits = |disk: &Disk| {
        let letters = disk.name.strip_prefix(prefix(scsi::bus(disk))).unwrap_or_default();
        (1..=2).contains(&letters.len()) && letters.bytes().all(|letter| letter.is_ascii_lowercase())
    };
    let mut names: Vec<Option<String>> = vec![None; disks.len()];
    for (index, disk) in disks.iter().enumerate().filter(|(_, disk)| fits(disk)) {
        let name = Some(disk.name.clone());
        if !names.contains(&name) {
            names[index] = name;
        }
    }
    for (index, disk) in disks.iter().enumerate() {
        if names[index].is_none() {
            // One more than there are disks: one of them is free.
            names[index] = (0..=disks.len())
                .map(|number| target(scsi::bus(disk), number))
                .find(|name| !names.contains(&Some(name.clone())));
        }
    }
    names.into_iter().flatten().collect()
}

/// The `number`th target name on a bus: `vda`, …, `vdz`, `vdaa`, …
fn target(bus: DiskBus, number: usize) -> String {
    let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
    let mut name = prefix(bus).to_owned();
    if number >= 26 {
        name.push(letter(number / 26 - 1));
    }
    name.push(letter(number));
    name
}

/// Boot orders: those of the source, numbered anew from 1 (other devices of the source may have had some of them), else
/// the first disk.
fn boot_orders(disks: &[Disk]) -> Vec<Option<u32>> {
    let mut ordered: Vec<usize> = (0..disks.len())
        .filter(|index| disks[*index].boot_order.is_some())
        .collect();
    ordered.sort_by_key(|index| disks[*index].boot_order);
    if ordered.is_empty() && !disks.is_empty() {
        ordered.push(0);
    }
    let mut orders = vec![None; disks.len()];
    for (index, order) in ordered.into_iter().zip(1..) {
        orders[index] = Some(order);
    }
    orders
}

/// A network interface. What only the source has ([`NicAttachment::Other`]) is refused before it comes here; a NIC without
/// a network would be worse than one on user-mode networking only in silence, so it gets that.
fn nic(nic: &Nic) -> Element {
    let (kind, source) = match &nic.attachment {
        NicAttachment::Network(name) => ("network", Some(Element::new("source").with("network", name))),
        NicAttachment::Bridge(name) => ("bridge", Some(Element::new("source").with("bridge", name))),
        NicAttachment::User | NicAttachment::Other(_) => ("user", None),
    };
    let mac = (!nic.mac.is_empty()).then(|| Element::new("mac").with("address", &nic.mac));
    let model = nic
        .model
        .as_ref()
        .map(|model| Element::new("model").with("type", model));
    Element::new("interface")
        .with("type", kind)
        .children_of(mac)
        .children_of(source)
        .children_of(model)
}
