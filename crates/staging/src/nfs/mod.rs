//! NFS: as a mounted path ([`MountedPath`]) or over the network, without a mount and without privileges ([`NfsServer`]).
//!
//! Both keep the same files: an object is the file `<path>/<key>`. What is not whole yet has a hidden name in the same folder,
//! which no key can be. So one machine may use the mount and another the network for the same migration, and what one
//! began the other completes. Every change that others can see is one rename or one link.

mod mounted;
mod names;
mod network;

pub use mounted::MountedPath;
pub use network::{InvalidOption, MountOptions, NfsConfig, NfsServer};
