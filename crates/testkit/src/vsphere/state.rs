//! What is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::Must;
use crate::guest::Format;
use crate::image;

/// Everything that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// VMs, by name.
    pub vms: Vec<Vm>,
    /// Leases that live.
    pub leases: Vec<Lease>,
    /// Every file and folder of every datastore, as in `[LocalDS_0] web/web.vmdk`.
    pub files: Vec<String>,
    /// How many are logged in.
    pub sessions: u64,
}

impl State {
    /// The VM of that name.
    pub fn vm(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    pub(super) fn read(seen: &Value) -> Self {
        let mut vms: Vec<Vm> = list(&seen["vms"]).iter().map(Vm::read).collect();
        vms.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            vms,
            leases: list(&seen["leases"]).iter().map(Lease::read).collect(),
            files: list(&seen["files"]).iter().map(text).collect(),
            sessions: number(&seen["sessions"]),
        }
    }
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its id, as in `vm-42`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of the folder that it is in.
    pub folder: String,
    /// Name of its host.
    pub host: String,
    /// Whether it runs.
    pub on: bool,
    /// `bios` or `efi`.
    pub firmware: String,
    /// Whether Secure Boot is enforced.
    pub secure_boot: bool,
    /// Processors.
    pub cpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// VMware's name of the guest's operating system.
    pub guest_id: String,
    /// Notes.
    pub annotation: String,
    /// Further options.
    pub extra_config: BTreeMap<String, String>,
    /// Disks, in the order of its devices.
    pub disks: Vec<Disk>,
    /// Network interfaces, in the order of its devices.
    pub nics: Vec<Nic>,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
}

impl Vm {
    fn read(seen: &Value) -> Self {
        let options = seen["extra_config"].as_object().must("read a VM's options");
        Self {
            id: text(&seen["ref"]),
            name: text(&seen["name"]),
            folder: text(&seen["folder"]),
            host: text(&seen["host"]),
            on: seen["on"] == true,
            firmware: text(&seen["firmware"]),
            secure_boot: seen["secure_boot"] == true,
            cpus: number(&seen["cpus"]),
            memory_mib: number(&seen["memory_mb"]),
            guest_id: text(&seen["guest_id"]),
            annotation: text(&seen["annotation"]),
            extra_config: options.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            disks: list(&seen["disks"]).iter().map(Disk::read).collect(),
            nics: list(&seen["nics"]).iter().map(Nic::read).collect(),
            snapshots: list(&seen["snapshots"]).iter().map(text).collect(),
        }
    }
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its device key.
    pub key: u64,
    /// Its file, as in `[LocalDS_0] web/web.vmdk`.
    pub file: String,
    /// Its content: a raw, sparse file of this machine.
    pub content: PathBuf,
    /// Virtual size in bytes.
    pub bytes: u64,
    /// Type of its controller, as in `ParaVirtualSCSIController`.
    pub controller: String,
    /// Number of that controller's bus.
    pub bus: u64,
    /// Its unit there.
    pub unit: u64,
    /// Whether it is thin.
    pub thin: bool,
}

impl Disk {
    /// Asserts that it holds what an image does; the longer of them may end in zeros.
    #[track_caller]
    pub fn assert_same(&self, other: &Path, format: Format) {
        image::assert_same(&self.content, Format::Raw, other, format);
    }

    fn read(seen: &Value) -> Self {
        Self {
            key: number(&seen["key"]),
            file: text(&seen["file"]),
            content: PathBuf::from(text(&seen["content"])),
            bytes: number(&seen["bytes"]),
            controller: text(&seen["controller"]),
            bus: number(&seen["bus"]),
            unit: number(&seen["unit"]),
            thin: seen["thin"] == true,
        }
    }
}

/// A network interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Type of its device, as in `VirtualVmxnet3`.
    pub model: String,
    /// MAC address.
    pub mac: String,
    /// Who chose that: `manual`, `generated`, `assigned`.
    pub address_type: String,
    /// What it is attached to, by name.
    pub network: String,
}

impl Nic {
    fn read(seen: &Value) -> Self {
        Self {
            model: text(&seen["model"]),
            mac: text(&seen["mac"]),
            address_type: text(&seen["address_type"]),
            network: text(&seen["network"]),
        }
    }
}

/// A lease that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The id of the VM that it holds.
    pub vm: String,
    /// Whether it imports.
    pub import: bool,
}

impl Lease {
    fn read(seen: &Value) -> Self {
        Self {
            vm: text(&seen["vm"]),
            import: seen["import"] == true,
        }
    }
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its method, as in `ExportSnapshot`.
    pub method: String,
    /// The id of the object that it was made of.
    pub this: String,
}

impl Call {
    pub(super) fn read(seen: &Value) -> Vec<Self> {
        let read = |call: &Value| Self {
            method: text(&call["method"]),
            this: text(&call["this"]),
        };
        list(seen).iter().map(read).collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().must(format!("read a text in {value}")).to_owned()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().must(format!("read a number in {value}"))
}
