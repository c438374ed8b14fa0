//! ssh, spoken by this process: no `ssh` binary, no key in a file, no secret on a command line.

mod known_hosts;
mod listener;
mod session;
mod tunnel;

pub(in crate::libvirt) use tunnel::Tunnel;
