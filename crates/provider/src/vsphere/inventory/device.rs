//! Devices of a VM: controllers, disks, network interfaces.

use crate::vsphere::soap::{Element, Moref};

/// The bus of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Bus {
    /// IDE.
    Ide,
    /// SCSI, of any model.
    Scsi,
    /// SATA.
    Sata,
    /// NVMe.
    Nvme,
}

impl Bus {
    /// As in `scsi0:0`, which is how a VM's configuration file names its disks.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
            Self::Nvme => "nvme",
        }
    }

    /// The bus of a controller of this class, as in `VirtualLsiLogicSASController`.
    pub(crate) fn of_class(class: &str) -> Option<Self> {
        Some(match class {
            "VirtualIDEController" => Self::Ide,
            "VirtualAHCIController" | "VirtualSATAController" => Self::Sata,
            "VirtualNVMEController" => Self::Nvme,
            "ParaVirtualSCSIController"
            | "VirtualLsiLogicController"
            | "VirtualLsiLogicSASController"
            | "VirtualBusLogicController"
            | "VirtualSCSIController" => Self::Scsi,
            _ => return None,
        })
    }
}

/// A disk controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    /// Key within the VM.
    pub(crate) key: i64,
    /// Its class.
    pub(crate) class: String,
    /// Its bus.
    pub(crate) bus: Bus,
    /// Number of the bus.
    pub(crate) number: i64,
    /// Whether other VMs can be attached to it too.
    pub(crate) is_shared: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VirtualDisk {
    /// Key within the VM.
    pub(crate) key: i64,
    /// What it is attached to; `None` where it is something that we do not know.
    pub(crate) controller: Option<Controller>,
    /// Its place on the controller.
    pub(crate) unit: i64,
    /// Virtual size in bytes.
    pub(crate) capacity: u64,
    /// Its content.
    pub(crate) backing: Backing,
}

/// What a disk's content is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Backing {
    /// Its class, as in `VirtualDiskFlatVer2BackingInfo`.
    pub(crate) class: String,
    /// Datastore path of the file, as in `[ds] web/web.vmdk`.
    pub(crate) file: String,
    /// `persistent`, `independent_persistent` and so on.
    pub(crate) mode: String,
    /// Whether several VMs may write to it.
    pub(crate) is_shared: bool,
    /// Whether it is encrypted.
    pub(crate) is_encrypted: bool,
}

impl VirtualDisk {
    /// How vmferry and a VM's configuration file name it: `scsi0:0`.
    pub(crate) fn name(&self) -> String {
        match &self.controller {
            Some(controller) => format!("{}{}:{}", controller.bus.prefix(), controller.number, self.unit),
            None => format!("disk{}", self.key),
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VirtualNic {
    /// Key within the VM.
    pub(crate) key: i64,
    /// Its class, as in `VirtualVmxnet3`.
    pub(crate) class: String,
    /// MAC address as the server writes it.
    pub(crate) mac: String,
    /// What it is attached to.
    pub(crate) network: NicNetwork,
}

/// What a network interface is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NicNetwork {
    /// A standard network, by its name.
    Named(String),
    /// A portgroup of a distributed switch.
    Portgroup(Moref),
    /// A network of another product, by its id.
    Opaque(String),
    /// Nothing that says its name.
    Unknown,
}

/// The disks and the network interfaces among a VM's devices, in the order of their controllers and places, or keys.
pub(crate) fn devices(hardware: &Element) -> (Vec<VirtualDisk>, Vec<VirtualNic>) {
    let controllers: Vec<Controller> = hardware.all("device").filter_map(controller).collect();
    let mut disks: Vec<VirtualDisk> = hardware
        .all("device")
        .filter_map(|device| disk(device, &controllers))
        .collect();
    disks.sort_by_key(|disk| {
        let place = disk
            .controller
            .as_ref()
            .map(|controller| (controller.bus, controller.number));
        (place.is_none(), place, disk.unit, disk.key)
    });
    let mut nics: Vec<VirtualNic> = hardware.all("device").filter_map(nic).collect();
    nics.sort_by_key(|nic| nic.key);
    (disks, nics)
}

fn controller(device: &Element) -> Option<Controller> {
    let class = device.schema_type()?;
    Some(Controller {
        key: device.number_at("key")?,
        bus: Bus::of_class(class)?,
        class: class.to_owned(),
        number: device.number_at("busNumber")?,
        is_shared: device
            .text_at("sharedBus")
            .is_some_and(|sharing| sharing != "noSharing"),
    })
}

fn disk(device: &Element, controllers: &[Controller]) -> Option<VirtualDisk> {
    if device.schema_type() != Some("VirtualDisk") {
        return None;
    }
    let controller = device.number_at("controllerKey");
    let kib = || device.number_at("capacityInKB")?.checked_mul(1024);
    let capacity = device
        .number_at("capacityInBytes")
        .filter(|bytes| *bytes > 0)
        .or_else(kib);
    Some(VirtualDisk {
        key: device.number_at("key")?,
        controller: controllers.iter().find(|found| Some(found.key) == controller).cloned(),
        unit: device.number_at("unitNumber").unwrap_or(0),
        capacity: capacity.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        backing: device.child("backing").map(backing).unwrap_or_default(),
    })
}

fn backing(backing: &Element) -> Backing {
    Backing {
        class: backing.schema_type().unwrap_or_default().to_owned(),
        file: backing.text_at("fileName").unwrap_or_default().to_owned(),
        mode: backing.text_at("diskMode").unwrap_or_default().to_owned(),
        is_shared: backing
            .text_at("sharing")
            .is_some_and(|sharing| sharing != "sharingNone"),
        is_encrypted: backing.child("keyId").is_some(),
    }
}

fn nic(device: &Element) -> Option<VirtualNic> {
    let mac = device.text_at("macAddress")?;
    let network = device.child("backing").map_or(NicNetwork::Unknown, |backing| {
        if let Some(key) = backing.text_at("port/portgroupKey") {
            NicNetwork::Portgroup(Moref::new("DistributedVirtualPortgroup", key))
        } else if let Some(id) = backing.text_at("opaqueNetworkId") {
            NicNetwork::Opaque(id.to_owned())
        } else if let Some(name) = backing.text_at("deviceName") {
            NicNetwork::Named(name.to_owned())
        } else {
            NicNetwork::Unknown
        }
    });
    Some(VirtualNic {
        key: device.number_at("key")?,
        class: device.schema_type()?.to_owned(),
        mac: mac.to_owned(),
        network,
    })
}
