//! How parts are sent to a server: with as much proof on the way as it takes.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What goes with a part, from what is best to what every server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// A CRC-64/NVME that the server checks; the signature does not cover the bytes.
    Checksum,
    /// Nothing: a SHA-256 of the whole object is compared where it is read.
    Plain,
    /// A signature that covers the bytes, which costs their SHA-256 before they are sent.
    Signed,
}

impl Proof {
    const ALL: [Self; 3] = [Self::Checksum, Self::Plain, Self::Signed];

    /// The next one to try.
    pub(super) fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|proof| *proof > self)
    }
}

/// What was found out about a server. Each process finds it out again, by what is refused.
#[derive(Debug, Default)]
pub(super) struct Manner {
    /// Where in [`Proof::ALL`] to start.
    first: AtomicU8,
    without_checksums: AtomicBool,
}

impl Manner {
    /// What to try first.
    pub(super) fn first(&self) -> Proof {
        let first = usize::from(self.first.load(Ordering::Relaxed));
        Proof::ALL.get(first).copied().unwrap_or(Proof::Signed)
    }

    /// This was taken after the ones before it were refused.
    pub(super) fn settle(&self, proof: Proof) {
        self.first.store(proof as u8, Ordering::Relaxed);
    }

    /// Whether uploads are begun as ones with checksums.
    pub(super) fn has_checksums(&self) -> bool {
        !self.without_checksums.load(Ordering::Relaxed) && self.first() == Proof::Checksum
    }

    /// The server begins no uploads with checksums.
    pub(super) fn drop_checksums(&self) {
        self.without_checksums.store(true, Ordering::Relaxed);
    }

    /// In words.
    pub(super) fn describe(&self) -> &'static str {
        match self.first() {
            Proof::Checksum if self.has_checksums() => "every part carries a CRC-64 for the server to check",
            Proof::Checksum | Proof::Plain => {
                "the server takes no checksums of parts: the object's SHA-256 is compared where it is read"
            }
            Proof::Signed => "the server wants signed parts, which costs more processor time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let manner = Manner::default();
        assert!(manner.has_checksums() && manner.first() == Proof::Checksum);
        manner.settle(Proof::Signed);
        assert!(!manner.has_checksums() && manner.first() == Proof::Signed);
        assert_eq!(Proof::Signed.next(), None);
        assert_eq!(Proof::Checksum.next(), Some(Proof::Plain));
    }
}
