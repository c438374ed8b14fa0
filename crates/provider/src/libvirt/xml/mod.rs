//! libvirt's XML, both ways: what a host sends becomes the neutral model, and the neutral model becomes what a host is sent.
//!
//! Nothing here talks to a host. All data passes through one element tree ([`tree`]), so it is unescaped in one place
//! and escaped in one place.

pub mod caps;
mod disk;
mod domain;
mod render;
mod scsi;
pub mod storage;
pub mod tree;

pub use disk::{BackingXml, DeviceKind, DiskXml, SourceXml};
pub use domain::DomainXml;
pub use render::render;

/// Namespace of the mark of ownership in a domain's `<metadata>`.
pub const NAMESPACE: &str = "https://vmferry.dev/ns/1";

/// Name of the guest agent's channel. Source: <https://wiki.qemu.org/Features/GuestAgent>.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

#[cfg(test)]
mod tests;
