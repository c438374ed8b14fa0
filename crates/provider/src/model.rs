//! The neutral model of a virtual machine: what survives the move from one hypervisor to another.

use serde::{Deserialize, Serialize};
use vmferry_image::ImageFormat;

/// The migration that something was made for. Everything that vmferry makes at a hypervisor carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The UID of the `VMMigration`.
    pub uid: String,
}

impl Owner {
    /// The owner with this UID.
    pub fn new(uid: impl Into<String>) -> Self {
        Self { uid: uid.into() }
    }

    /// The first twelve hex digits of the UID, for names that people read.
    pub fn tag(&self) -> String {
        self.uid
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(12)
            .map(|digit| digit.to_ascii_lowercase())
            .collect()
    }
}

/// How a VM is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmSelector {
    /// The hypervisor's own id (libvirt: domain name or UUID), where it is known. It wins.
    pub id: Option<String>,
    /// The name.
    pub name: String,
}

/// A hypervisor's own, stable id of a VM (libvirt: the domain's UUID).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmId(pub String);

/// A VM as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub power: PowerState,
    /// What it is made of.
    pub hardware: Hardware,
}

/// Whether a VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerState {
    /// It runs (or is paused: it has memory and may write its disks again).
    On,
    /// It is shut off.
    Off,
}

/// What a VM is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// How it boots.
    pub firmware: Firmware,
    /// Machine type as the source calls it (`pc-i440fx-10.0`, `q35`); `None` lets the target choose.
    pub machine: Option<String>,
    /// Architecture, as in `uname -m`.
    pub arch: String,
    /// How its instructions are run; `None` lets the target choose.
    pub accel: Option<Accel>,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// CPU model as the source calls it, or `host-model`, `host-passthrough`; `None` lets the target choose.
    pub cpu_model: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disks, in the order in which the guest finds them; the first is the one that the hints may grow.
    pub disks: Vec<Disk>,
    /// Network interfaces, in order.
    pub nics: Vec<Nic>,
    /// Whether the guest has a guest-agent channel.
    pub guest_agent: bool,
    /// What the source calls the guest's operating system (vSphere: `ubuntu64Guest`; Proxmox VE: `l26`); `None` where it does
    /// not say.
    pub guest_os: Option<String>,
}

/// How a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Firmware {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi {
        /// Whether Secure Boot is enforced.
        secure_boot: bool,
    },
}

/// How instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Accel {
    /// By the processor (libvirt: `kvm`).
    Hardware,
    /// By emulation (libvirt: `qemu`).
    Emulation,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name at the source (libvirt: `vda`), unique within the VM.
    pub name: String,
    /// The bus on which the guest finds it.
    pub bus: DiskBus,
    /// Model of the SCSI controller, where the source has one that it names; `None` lets the target choose.
    #[serde(default)]
    pub controller: Option<ScsiController>,
    /// Format of its image at the source.
    pub format: ImageFormat,
    /// Virtual size in bytes.
    pub capacity: u64,
    /// Serial number that the guest sees.
    pub serial: Option<String>,
    /// Position in the boot order, from 1.
    pub boot_order: Option<u32>,
}

/// A disk bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// SCSI.
    Scsi,
    /// SATA.
    Sata,
    /// IDE.
    Ide,
    /// USB.
    Usb,
}

/// A SCSI controller that guests need a driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScsiController {
    /// virtio-scsi.
    Virtio,
    /// VMware's paravirtual controller.
    Pvscsi,
    /// LSI Logic SAS1068.
    LsiSas1068,
    /// LSI Logic 53C1030 (VMware's `lsilogic`).
    Lsi53c1030,
    /// LSI 53C895A (QEMU's and Proxmox VE's `lsi`).
    Lsi53c895a,
    /// MegaRAID SAS.
    Megasas,
}

/// A network interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// How hints name it: `eth0` for the first, `eth1` for the second, and so on.
    pub name: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Device model (`virtio`, `e1000e`, …); `None` lets the target choose.
    pub model: Option<String>,
    /// What it is attached to.
    pub attachment: NicAttachment,
}

/// What a network interface is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicAttachment {
    /// A network by name.
    Network(String),
    /// A host bridge by name.
    Bridge(String),
    /// User-mode networking, private to the VM's process.
    User,
    /// Something that only the source has, in words (`direct on eth0`). No target takes it: a hint must replace it.
    Other(String),
}
