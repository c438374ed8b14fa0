//! What a guest is made of.

use std::path::PathBuf;

use crate::MIB;

/// Format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bytes as the guest sees them.
    Raw,
    /// qcow2.
    Qcow2,
}

impl Format {
    /// As qemu and libvirt call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// The bus of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, `vda` …
    Virtio,
    /// virtio-scsi, `sda` …
    Scsi,
    /// AHCI, `sda` …; the guest's machine becomes q35.
    Sata,
    /// IDE, `hda` …
    Ide,
}

impl Bus {
    /// As libvirt calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
            Self::Ide => "ide",
        }
    }

    /// Name of the disk at this position.
    pub fn target(self, index: usize) -> String {
        let letter = char::from(b'a' + u8::try_from(index).unwrap_or(25));
        let prefix = match self {
            Self::Virtio => "vd",
            Self::Scsi | Self::Sata => "sd",
            Self::Ide => "hd",
        };
        format!("{prefix}{letter}")
    }
}

/// A disk to be made.
#[derive(Debug, Clone)]
pub struct DiskSpec {
    /// Format of its image.
    pub format: Format,
    /// Virtual size in bytes.
    pub size: u64,
    /// Its bus.
    pub bus: Bus,
    /// Bytes of noise from 8 MiB on, which neither compress nor repeat.
    pub noise: u64,
    /// Formats of the images that it stands on, the base first. Layer `n` (from 0) holds 64 KiB of the value `n + 1` at
    /// 4 MiB + `n` × 64 KiB.
    pub backing: Vec<Format>,
    /// An image to use instead of a new one; it is not copied.
    pub existing: Option<PathBuf>,
}

impl DiskSpec {
    /// An image of `size` bytes on a virtio bus.
    pub fn new(format: Format, size: u64) -> Self {
        Self {
            format,
            size,
            bus: Bus::Virtio,
            noise: 0,
            backing: Vec::new(),
            existing: None,
        }
    }

    /// A qcow2 image of `size` bytes.
    pub fn qcow2(size: u64) -> Self {
        Self::new(Format::Qcow2, size)
    }

    /// A raw image of `size` bytes.
    pub fn raw(size: u64) -> Self {
        Self::new(Format::Raw, size)
    }

    /// An image that exists.
    pub fn existing(path: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            existing: Some(path.into()),
            ..Self::new(format, 0)
        }
    }

    /// On this bus.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// With so many bytes of noise.
    #[must_use]
    pub fn noise(mut self, bytes: u64) -> Self {
        self.noise = bytes;
        self
    }

    /// On top of images in these formats, the base first.
    #[must_use]
    pub fn backing(mut self, formats: &[Format]) -> Self {
        self.backing = formats.to_vec();
        self
    }
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct NicSpec {
    /// MAC address.
    pub mac: String,
    /// Device model.
    pub model: String,
    /// libvirt network; `None` is user-mode networking.
    pub network: Option<String>,
}

impl NicSpec {
    /// A virtio interface in user mode.
    pub fn user(mac: &str) -> Self {
        Self {
            mac: mac.to_owned(),
            model: "virtio".to_owned(),
            network: None,
        }
    }
}

/// A guest to be made.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Name of the domain.
    pub name: String,
    /// What the micro guest greets with.
    pub marker: String,
    /// The disks; the first is the one that boots.
    pub disks: Vec<DiskSpec>,
    /// The network interfaces.
    pub nics: Vec<NicSpec>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// More of `<devices>`, in libvirt's XML.
    pub extra_devices: String,
}

impl GuestSpec {
    /// A micro guest with one NIC and no disk yet: the first one given becomes its boot disk.
    pub fn micro(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            marker: format!("{name}-marker"),
            disks: Vec::new(),
            nics: vec![NicSpec::user("52:54:00:12:34:56")],
            memory_mib: 32,
            vcpus: 1,
            extra_devices: String::new(),
        }
    }

    /// A micro guest with one qcow2 disk of 16 MiB.
    pub fn small(name: &str) -> Self {
        Self::micro(name).disk(DiskSpec::qcow2(16 * MIB))
    }

    /// With one more disk.
    #[must_use]
    pub fn disk(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }

    /// With the channel of the QEMU guest agent.
    #[must_use]
    pub fn agent(mut self) -> Self {
        self.extra_devices
            .push_str("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>");
        self
    }

    /// With one more network interface.
    #[must_use]
    pub fn nic(mut self, nic: NicSpec) -> Self {
        self.nics.push(nic);
        self
    }
}
