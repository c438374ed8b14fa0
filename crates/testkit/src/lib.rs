//! Real libvirt hosts, real guests, and the check that nothing is left: what the end-to-end tests stand on.
//!
//! - [`Host`] is a libvirt daemon of its own, up in a fraction of a second, gone with the test, however the test ends.
//! - [`GuestSpec`] and [`Guest`] are a VM on a host: usually the micro guest, a boot sector whose two ordered counters prove
//!   that an image is a point in time.
//! - [`stores`] are real staging servers, [`Proxy`] is a way to one that can be cut, and [`front::Front`] one that misbehaves.
//! - [`proxmox`] is a Proxmox VE cluster whose API checks what it is asked, and moves real bytes.
//! - [`World`] is everything on some hosts and in some folders, so that a test can assert what came and what went.
//!
//! A step that fails ends the test: functions here panic with what was tried and what came back, instead of returning errors.
//!
//! Architecture Invariant: nothing here knows vmferry. The kit drives `virsh`, `qemu-img` and the daemons themselves, so it
//! cannot share a mistake with the code under test.

mod authority;
mod command;
mod console;
pub mod front;
mod guest;
mod host;
pub mod image;
pub mod kube;
pub mod proxmox;
mod proxy;
pub mod stores;
pub mod vsphere;
mod wait;
mod world;

pub use command::{Must, run, try_run};
pub use guest::micro;
pub use guest::{Bus, Counters, DiskSpec, Format, Guest, GuestSpec, NicSpec};
pub use host::{Host, Kind, Ssh};
pub use proxy::Proxy;
pub use wait::{poll, wait_for};
pub use world::{Change, World, files_below};

/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
