//! ssh, spoken by this process: no `ssh` binary, no key in a file, no secret on a command line.

#[cfg(feature = "proxmox")]
mod command;
#[cfg(feature = "proxmox")]
mod feed;
mod known_hosts;
mod session;

#[cfg(feature = "proxmox")]
pub(crate) use command::{Running, quote};
#[cfg(feature = "proxmox")]
pub(crate) use feed::Feed;
pub(crate) use session::{Session, Target, UnixChannel};
