//! The `<disk>` elements of a domain.

use super::scsi;
use super::tree::Element;
use crate::{Disk, DiskBus, ImageFormat, ScsiController};

/// A `<disk>` as the domain has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one for each empty element that libvirt has for it"
)]
pub struct DiskXml {
    /// `<target dev>`: its name, unique within the domain.
    pub target: String,
    /// The bus, where it is one that can be moved.
    pub bus: Option<DiskBus>,
    /// The bus as libvirt calls it.
    pub bus_name: String,
    /// What the guest takes it for.
    pub device: DeviceKind,
    /// Where its content is.
    pub source: SourceXml,
    /// `<driver type>`: the format of its image, as libvirt calls it. libvirt's default without one is `raw`.
    pub format: Option<String>,
    /// `<readonly/>`.
    pub readonly: bool,
    /// `<shareable/>`: several VMs may write it.
    pub shareable: bool,
    /// `<transient/>`: what the guest writes is thrown away.
    pub transient: bool,
    /// `<encryption>`, of the disk or its source.
    pub encrypted: bool,
    /// `<mirror>`: a block job copies it right now.
    pub mirrored: bool,
    /// `<slices>`: only a part of the file is the disk.
    pub sliced: bool,
    /// The model of its SCSI controller, where it is on one.
    pub controller: Option<ScsiController>,
    /// `<serial>`.
    pub serial: Option<String>,
    /// `<boot order>`, from 1.
    pub boot_order: Option<u32>,
    /// The images under it, nearest first; `None` where libvirt does not tell (a domain that does not run).
    pub backing: Option<Vec<BackingXml>>,
}

/// What the guest takes a disk for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A disk.
    Disk,
    /// An optical drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
    /// A SCSI device that is passed through.
    Lun,
}

/// Where a disk's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceXml {
    /// Nowhere: an empty drive.
    Empty,
    /// A file on the host.
    File(String),
    /// A block device of the host.
    Block(String),
    /// A volume of a pool.
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's name.
        volume: String,
    },
    /// Something else, as libvirt calls it: `network (rbd)`, `nvme`, `vhostuser`, …
    Other(String),
}

/// An image under another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingXml {
    /// Where it is.
    pub source: SourceXml,
    /// Its format as libvirt calls it.
    pub format: Option<String>,
}

impl DiskXml {
    /// Reads a `<disk>` of `<devices>`; `None` without a target, which libvirt never writes.
    pub(super) fn read(devices: &Element, disk: &Element) -> Option<Self> {
        let target = disk.child("target")?;
        let bus_name = target.attr("bus").unwrap_or_default().to_owned();
        let source = disk.child("source");
        let within = |name| source.is_some_and(|source| source.child(name).is_some());
        Some(Self {
            target: target.attr("dev")?.to_owned(),
            bus: bus(&bus_name),
            bus_name,
            device: match disk.attr("device") {
                Some("cdrom") => DeviceKind::Cdrom,
                Some("floppy") => DeviceKind::Floppy,
                Some("lun") => DeviceKind::Lun,
                _ => DeviceKind::Disk,
            },
            source: SourceXml::read(disk),
            format: disk.attr_at(&["driver"], "type").map(str::to_owned),
            readonly: disk.child("readonly").is_some(),
            shareable: disk.child("shareable").is_some(),
            transient: disk.child("transient").is_some(),
            encrypted: disk.child("encryption").is_some() || within("encryption"),
            mirrored: disk.child("mirror").is_some(),
            sliced: within("slices"),
            controller: scsi::model_of(devices, disk),
            serial: disk.text_at(&["serial"]).map(str::to_owned),
            boot_order: disk
                .attr_at(&["boot"], "order")
                .and_then(|order| order.parse().ok())
                .filter(|order| *order > 0),
            backing: backing_chain(disk),
        })
    }

    /// As a disk of the neutral model; `None` where its bus cannot be moved. Format and virtual size are the image's own,
    /// which the domain does not know.
    pub fn to_disk(&self, format: ImageFormat, capacity: u64) -> Option<Disk> {
        Some(Disk {
            name: self.target.clone(),
            bus: self.bus?,
            controller: self.controller,
            format,
            capacity,
            serial: self.serial.clone(),
            boot_order: self.boot_order,
        })
    }
}

impl SourceXml {
    /// Reads the `<source>` of a `<disk>` or a `<backingStore>`.
    fn read(holder: &Element) -> Self {
        let kind = holder.attr("type").unwrap_or("file");
        let Some(source) = holder.child("source") else {
            return Self::Empty;
        };
        let attribute = |name| source.attr(name).map(str::to_owned);
        let found = match kind {
            "file" => attribute("file").map(Self::File),
            "block" => attribute("dev").map(Self::Block),
            "volume" => attribute("pool")
                .zip(attribute("volume"))
                .map(|(pool, volume)| Self::Volume { pool, volume }),
            "network" => Some(Self::Other(format!(
                "network ({})",
                source.attr("protocol").unwrap_or("unknown protocol")
            ))),
            other => Some(Self::Other(other.to_owned())),
        };
        found.unwrap_or(Self::Empty)
    }
}

/// The chain of `<backingStore>` elements, where libvirt told it to its end.
fn backing_chain(disk: &Element) -> Option<Vec<BackingXml>> {
    let mut chain = Vec::new();
    let mut next = disk.child("backingStore");
    while let Some(store) = next {
        if store.attr("type").is_none() {
            return Some(chain);
        }
        chain.push(BackingXml {
            source: SourceXml::read(store),
            format: store.attr_at(&["format"], "type").map(str::to_owned),
        });
        next = store.child("backingStore");
    }
    None
}

fn bus(name: &str) -> Option<DiskBus> {
    match name {
        "virtio" => Some(DiskBus::Virtio),
        "scsi" => Some(DiskBus::Scsi),
        "sata" => Some(DiskBus::Sata),
        "ide" => Some(DiskBus::Ide),
        "usb" => Some(DiskBus::Usb),
        _ => None,
    }
}

/// The name of a bus as libvirt calls it.
pub(super) fn bus_name(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Virtio => "virtio",
        DiskBus::Scsi => "scsi",
        DiskBus::Sata => "sata",
        DiskBus::Ide => "ide",
        DiskBus::Usb => "usb",
    }
}

/// The first two letters of the target names on a bus.
pub(super) fn prefix(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Virtio => "vd",
        DiskBus::Scsi | DiskBus::Sata | DiskBus::Usb => "sd",
        DiskBus::Ide => "hd",
    }
}

/// Puts disks into the order in which the guest finds them: by boot order where they have one, then as libvirt has the
/// buses, and within one bus by target (`vda`, `vdb`, …, `vdaa`).
pub(super) fn sort(disks: &mut [DiskXml]) {
    let family = |target: &str| target.get(..2).unwrap_or(target).to_owned();
    let mut families: Vec<String> = Vec::new();
    for disk in disks.iter() {
        let family = family(&disk.target);
        if !families.contains(&family) {
            families.push(family);
        }
    }
    disks.sort_by_key(|disk| {
        (
            disk.boot_order.unwrap_or(u32::MAX),
            families.iter().position(|known| *known == family(&disk.target)),
            disk.target.len(),
            disk.target.clone(),
        )
    });
}
