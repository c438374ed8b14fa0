//! A hypervisor of each kind, as the tests see it.

mod libvirt;
mod proxmox;
mod vsphere;

use std::path::PathBuf;

use serde_json::Value;
use vmferry_testkit::Format;

/// A kind of hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A libvirt host.
    Libvirt,
    /// A vCenter.
    Vsphere,
    /// A standalone ESXi host, which has `*` for its own name in URLs.
    Esxi,
    /// A Proxmox VE cluster.
    Proxmox,
}

impl Kind {
    /// Whether it is vSphere, of either sort.
    pub fn is_vsphere(self) -> bool {
        matches!(self, Self::Vsphere | Self::Esxi)
    }
}

/// A VM to be found at the source.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its name.
    pub name: String,
    /// Its disks: images that are copied, in order.
    pub disks: Vec<(PathBuf, Format)>,
    /// MAC address of its interface, where it has one.
    pub mac: Option<String>,
    /// Whether it runs.
    pub running: bool,
}

/// What a VM that arrived is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// MAC addresses, lower case.
    pub macs: Vec<String>,
    /// Processors.
    pub cpus: u64,
    /// Memory in MiB.
    pub memory: u64,
    /// Whether it runs.
    pub running: bool,
}

/// A hypervisor. It is gone with all that it held when it is dropped.
pub trait Side {
    /// `spec` of its Provider, without the reference to the Secret.
    fn provider(&self) -> Value;

    /// `stringData` of its Secret, where it takes one.
    fn secret(&self) -> Option<Value>;

    /// What nobody may see of the Secret.
    fn hidden(&self) -> Option<String> {
        None
    }

    /// Makes a VM.
    fn seed(&self, seed: &Seed);

    /// An interface's hint for a network that is there.
    fn network(&self) -> Value;

    /// What a VM is made of.
    fn found(&self, vm: &str) -> Found;

    /// The files with a VM's disks, in order.
    fn disks(&self, vm: &str) -> Vec<(PathBuf, Format)>;

    /// Everything that is there, a line each. Lines of a VM that arrived name it, or its id as [`id`](Self::id) says.
    fn everything(&self) -> Vec<String>;

    /// How lines of [`everything`](Self::everything) name what is a VM's.
    fn names(&self, vm: &str) -> Vec<String>;

    /// Bytes that were sent to its API, where they are counted.
    fn received(&self) -> u64 {
        0
    }

    /// How many are logged in, where that is counted.
    fn sessions(&self) -> u64 {
        0
    }

    /// Whether bytes of a disk are on their way to or from it, where that shows.
    fn is_moving(&self) -> bool {
        true
    }

    /// Restarts it, where it can be: who was logged in is not any more.
    fn restart(&self) {}

    /// Asserts that it was spoken to as it should be.
    fn assert_proper(&self) {}
}

/// Starts one.
pub fn start(kind: Kind, name: &str) -> Box<dyn Side> {
    match kind {
        Kind::Libvirt => Box::new(libvirt::start(name)),
        Kind::Vsphere => Box::new(vsphere::start(false)),
        Kind::Esxi => Box::new(vsphere::start(true)),
        Kind::Proxmox => Box::new(proxmox::start()),
    }
}
