//! VMs that are there before the test begins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Proxmox;
use crate::guest::Format;

/// A disk of a VM to be made.
#[derive(Debug, Clone)]
pub struct SeedDisk {
    /// Its key in the config: `scsi0`, `virtio1`.
    pub key: String,
    /// The image whose content it gets, and that image's format.
    pub image: (PathBuf, Format),
    /// The storage.
    pub storage: String,
    /// Its format there, where the storage has a choice.
    pub format: Format,
    /// Options of the drive: `serial`, `backup`, …
    pub options: BTreeMap<String, String>,
}

impl SeedDisk {
    /// A disk on [`Proxmox::LOCAL`] with the content of an image, in the image's format.
    pub fn new(key: &str, image: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            key: key.to_owned(),
            image: (image.into(), format),
            storage: Proxmox::LOCAL.to_owned(),
            format,
            options: BTreeMap::new(),
        }
    }

    /// On this storage.
    #[must_use]
    pub fn on(mut self, storage: &str) -> Self {
        storage.clone_into(&mut self.storage);
        self
    }

    /// In this format there.
    #[must_use]
    pub fn stored_as(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// With an option.
    #[must_use]
    pub fn option(mut self, key: &str, value: &str) -> Self {
        self.options.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A VM to be made.
#[derive(Debug, Clone)]
pub struct SeedVm {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its config but for the disks.
    pub config: BTreeMap<String, String>,
    /// Its disks.
    pub disks: Vec<SeedDisk>,
}

impl SeedVm {
    /// A VM on the first node with one core, 32 MiB and a virtio NIC, and no disk yet.
    pub fn new(id: u32, name: &str) -> Self {
        let config = [
            ("name", name),
            ("cores", "1"),
            ("sockets", "1"),
            ("memory", "32"),
            ("ostype", "l26"),
            ("scsihw", "virtio-scsi-pci"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("smbios1", "uuid=2f5f3a51-6c1b-4b6f-8f7c-4b3a0c9d1e2f"),
        ];
        Self {
            id,
            name: name.to_owned(),
            node: Proxmox::NODES[0].to_owned(),
            config: config.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            disks: Vec::new(),
        }
    }

    /// With one more disk; the first one is what it boots from.
    #[must_use]
    pub fn disk(mut self, disk: SeedDisk) -> Self {
        if self.disks.is_empty() {
            self = self.set("boot", &format!("order={}", disk.key));
        }
        self.disks.push(disk);
        self
    }

    /// With this in its config.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// On this node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }
}

impl Proxmox {
    /// Makes a VM, stopped, with copies of its images.
    #[track_caller]
    pub fn seed(&self, vm: &SeedVm) {
        let disks: Vec<Value> = vm
            .disks
            .iter()
            .map(|disk| {
                json!({"key": disk.key, "path": disk.image.0, "format": disk.image.1.name(), "storage": disk.storage,
                       "as": disk.format.name(), "options": disk.options})
            })
            .collect();
        let arguments = json!({"vmid": vm.id, "name": vm.name, "node": vm.node, "config": vm.config, "disks": disks});
        self.control.ask("add-vm", &arguments);
    }

    /// Starts a VM's process, past the API.
    #[track_caller]
    pub fn start_vm(&self, id: u32) {
        self.control.ask("start-vm", &json!({"vmid": id}));
    }

    /// Pulls a VM's plug, past the API.
    #[track_caller]
    pub fn stop_vm(&self, id: u32) {
        self.control.ask("stop-vm", &json!({"vmid": id}));
    }

    /// Deletes a VM with its volumes, past the API.
    #[track_caller]
    pub fn remove_vm(&self, id: u32) {
        self.control.ask("remove-vm", &json!({"vmid": id}));
    }

    /// Changes a VM's config, past the API; `None` takes the key away.
    #[track_caller]
    pub fn set_config(&self, id: u32, key: &str, value: Option<&str>) {
        self.control
            .ask("set-config", &json!({"vmid": id, "config": {key: value}}));
    }

    /// Makes a volume that no VM's config names, as an import leaves it that was killed.
    #[track_caller]
    pub fn leave_volume(&self, volume: &str) {
        self.control.ask("leave-volume", &json!({"volume": volume}));
    }
}
