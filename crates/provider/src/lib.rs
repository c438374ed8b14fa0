//! Hypervisors: the ports, and one folder for each hypervisor.
//!
//! A hypervisor can be a source ([`SourceHost`]) and a target ([`TargetHost`]). Every call is idempotent, so that whoever
//! crashed between the act and its record may simply call again: what is made carries the migration's [`Owner`], what is
//! asked for twice is found the second time, and what is deleted twice is gone the second time.
//!
//! Architecture Invariant: a provider knows nothing of phases, retries or staging, and nothing of custom resources.

#[cfg(any(feature = "libvirt", feature = "proxmox", feature = "vsphere"))]
mod addresses;
mod error;
mod model;
mod port;

pub mod credentials;
#[cfg(feature = "libvirt")]
pub mod libvirt;
#[cfg(feature = "proxmox")]
pub mod proxmox;
#[cfg(any(feature = "libvirt", feature = "proxmox"))]
mod ssh;
#[cfg(any(feature = "proxmox", feature = "vsphere"))]
mod tls;
#[cfg(feature = "vsphere")]
pub mod vsphere;

pub use error::{Error, Kind};
pub use model::{
    Accel, Disk, DiskBus, Firmware, Hardware, Nic, NicAttachment, Owner, PowerState, ScsiController, Vm, VmId,
    VmSelector,
};
pub use port::{
    CreatedVm, Creation, DiskInput, DiskSink, DiskSource, DiskStream, Frozen, FrozenId, Hypervisor, Intake, Pull,
    SourceHost, TargetDisk, TargetHost, TargetPlan, VmSpec, Volume, VolumeId, VolumeSpec,
};
pub use vmferry_image::{ImageFormat, UnknownFormat};
