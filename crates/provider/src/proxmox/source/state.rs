//! The name of a running VM's frozen state, and of all that belongs to it.
//!
//! A state is called `vmferry-TAG-NONCE`: the tag is the owner's, the nonce this state's. Both are in the names of
//! exports, block nodes, sockets and volumes, so whoever finds one of them later knows whose it is.

use std::fmt;

/// Where QEMU of a VM may make sockets: Proxmox VE's own folder for them.
pub(super) const RUN: &str = "/var/run/qemu-server";

/// A block node of a state, one of each for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Keeps what the guest overwrites.
    Changes,
    /// Stands between the guest and its disk, and copies into the changes what is about to be overwritten.
    Filter,
    /// The disk as it was at that instant.
    Access,
}

impl Part {
    fn prefix(self) -> &'static str {
        match self {
            Self::Changes => "vc-",
            Self::Filter => "vf-",
            Self::Access => "va-",
        }
    }
}

/// The name of a frozen state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateId {
    pub tag: String,
    pub nonce: String,
}

impl StateId {
    /// A new state of the owner with this tag.
    pub fn new(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            nonce: format!("{:06x}", rand::random::<u32>() & 0x00ff_ffff),
        }
    }

    /// What the names of an owner begin with.
    pub fn prefix(tag: &str) -> String {
        format!("vmferry-{tag}-")
    }

    /// The export of a disk.
    pub fn of_disk(&self, disk: &str) -> String {
        format!("{self}-{disk}")
    }

    /// The export that keeps others from changing the size of a disk meanwhile: QEMU would not survive it.
    pub fn guard_of(&self, disk: &str) -> String {
        format!("{self}-{disk}-guard")
    }

    /// The state and the disk that an export is of.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.strip_prefix("vmferry-")?.splitn(3, '-');
        let (tag, nonce) = (parts.next()?, parts.next()?);
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let disk = parts.next().unwrap_or_default();
        (is_hex(tag) && is_hex(nonce) && nonce.len() == 6).then(|| {
            let (tag, nonce) = (tag.to_owned(), nonce.to_owned());
            (Self { tag, nonce }, disk)
        })
    }

    /// A block node of a disk: QEMU takes names of up to 31 bytes.
    pub fn node(&self, part: Part, disk: &str) -> String {
        format!("{}{}-{}-{disk}", part.prefix(), self.tag, self.nonce)
    }

    /// What the block nodes of an owner begin with.
    pub fn node_prefix(part: Part, tag: &str) -> String {
        format!("{}{tag}-", part.prefix())
    }

    /// The socket of its NBD server.
    pub fn socket(&self) -> String {
        format!("{RUN}/{self}.sock")
    }

    /// The name of the volume for what the guest overwrites on a disk.
    pub fn volume(&self, vmid: u64, disk: &str) -> String {
        format!("vm-{vmid}-{self}-{disk}")
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::prefix(&self.tag), self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_again() {
        let id = StateId::new("0123456789ab");
        assert_eq!(StateId::parse(&id.of_disk("scsi0")), Some((id.clone(), "scsi0")));
        assert_eq!(StateId::parse(&id.to_string()), Some((id.clone(), "")));
        assert_ne!(StateId::parse(&id.guard_of("scsi0")), Some((id.clone(), "scsi0")));
        for part in [Part::Changes, Part::Filter, Part::Access] {
            let node = id.node(part, "virtio15");
            assert!(
                node.len() <= 31 && node.starts_with(&StateId::node_prefix(part, &id.tag)),
                "{node}"
            );
        }
        assert!(id.socket().len() <= 107);
        for other in [
            "",
            "vmferry-",
            "vmferry-x-123456-a",
            "vmferry-12-12345-a",
            "drive-scsi0",
            "backup-123456-a",
        ] {
            assert_eq!(StateId::parse(other), None, "{other}");
        }
    }
}
