//! The way to a libvirt host through ssh, which this process speaks itself ([`crate::ssh`]).

mod listener;
mod tunnel;

pub(in crate::libvirt) use tunnel::Tunnel;
