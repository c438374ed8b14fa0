//! VMs to be found.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::guest::Format;

/// How a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// By BIOS.
    Bios,
    /// By UEFI.
    Efi,
    /// By UEFI, Secure Boot enforced.
    SecureEfi,
}

/// A VM to be found. Shut off, without VMware Tools, BIOS, one processor and 128 MiB, unless it is said otherwise.
#[derive(Debug, Clone)]
pub struct VmSeed {
    /// Its name.
    pub name: String,
    /// The VM folder, by its name; none is the datacenter's own.
    pub folder: Option<String>,
    /// The datastore; none is the first.
    pub datastore: Option<String>,
    /// How it boots.
    pub firmware: Firmware,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// VMware's name of the guest's operating system.
    pub guest_id: String,
    /// Notes.
    pub annotation: String,
    /// Disks, in order.
    pub disks: Vec<DiskSeed>,
    /// Network interfaces, in order.
    pub nics: Vec<NicSeed>,
    /// Whether it runs.
    pub on: bool,
    /// Whether VMware Tools run when it does.
    pub tools: bool,
}

impl VmSeed {
    /// A VM of that name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            folder: None,
            datastore: None,
            firmware: Firmware::Bios,
            cpus: 1,
            memory_mib: 128,
            guest_id: "otherGuest64".to_owned(),
            annotation: String::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            on: false,
            tools: false,
        }
    }

    /// With a disk.
    #[must_use]
    pub fn disk(mut self, disk: DiskSeed) -> Self {
        self.disks.push(disk);
        self
    }

    /// With a network interface: `model` is `vmxnet3`, `e1000` or `e1000e`.
    #[must_use]
    pub fn nic(mut self, mac: &str, model: &str, network: &str) -> Self {
        self.nics.push(NicSeed {
            mac: mac.to_owned(),
            model: model.to_owned(),
            network: network.to_owned(),
            addresses: Vec::new(),
        });
        self
    }

    /// With these IP addresses at the interface that was given last, which VMware Tools say when they run.
    #[must_use]
    pub fn addresses(mut self, addresses: &[&str]) -> Self {
        if let Some(nic) = self.nics.last_mut() {
            nic.addresses = addresses.iter().map(ToString::to_string).collect();
        }
        self
    }

    /// Running, with VMware Tools.
    #[must_use]
    pub fn running(mut self) -> Self {
        (self.on, self.tools) = (true, true);
        self
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "name": self.name, "folder": self.folder.as_deref().unwrap_or_default(),
            "datastore": self.datastore.as_deref().unwrap_or_default(),
            "firmware": if self.firmware == Firmware::Bios { "bios" } else { "efi" },
            "secure_boot": self.firmware == Firmware::SecureEfi,
            "cpus": self.cpus, "memory_mb": self.memory_mib, "guest_id": self.guest_id, "annotation": self.annotation,
            "disks": self.disks.iter().map(DiskSeed::as_json).collect::<Vec<_>>(),
            "nics": self.nics.iter().map(NicSeed::as_json).collect::<Vec<_>>(),
            "on": self.on, "tools": self.tools,
        })
    }
}

/// A disk, filled from an image.
#[derive(Debug, Clone)]
pub struct DiskSeed {
    /// The image.
    pub image: PathBuf,
    /// Its format.
    pub format: Format,
    /// The controller that it is on: `pvscsi`, `lsilogic`, `lsisas1068`, `buslogic`, `sata`, `nvme` or `ide`.
    pub controller: String,
    /// `persistent`, `independent_persistent`, …
    pub mode: String,
    /// Whether it is thick.
    pub thick: bool,
}

impl DiskSeed {
    /// A thin disk on a paravirtual controller.
    pub fn of(image: &Path, format: Format) -> Self {
        Self {
            image: image.to_owned(),
            format,
            controller: "pvscsi".to_owned(),
            mode: "persistent".to_owned(),
            thick: false,
        }
    }

    /// On another kind of controller.
    #[must_use]
    pub fn on(mut self, controller: &str) -> Self {
        controller.clone_into(&mut self.controller);
        self
    }

    fn as_json(&self) -> Value {
        let image = std::path::absolute(&self.image).unwrap_or_else(|_| self.image.clone());
        json!({
            "path": image, "format": self.format.name(), "controller": self.controller, "mode": self.mode, "thick": self.thick,
        })
    }
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct NicSeed {
    /// MAC address.
    pub mac: String,
    /// `vmxnet3`, `e1000` or `e1000e`.
    pub model: String,
    /// A standard network or a distributed portgroup, by name.
    pub network: String,
    /// IP addresses, as VMware Tools say them.
    pub addresses: Vec<String>,
}

impl NicSeed {
    fn as_json(&self) -> Value {
        json!({ "mac": self.mac, "model": self.model, "network": self.network, "addresses": self.addresses })
    }
}
