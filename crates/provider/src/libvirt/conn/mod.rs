//! The connection to a libvirt host: where it is, how it is reached, and how every call over it is made.

mod endpoint;
mod fault;
mod handle;

pub(in crate::libvirt) use endpoint::{Address, Endpoint, Mode, Transport};
pub(in crate::libvirt) use fault::{fault, kind};
pub(in crate::libvirt) use handle::Handle;
