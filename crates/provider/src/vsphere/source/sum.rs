//! The digest of what arrived, in the kind that the server's manifest has.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use vmferry_block::Buf;

use crate::vsphere::lease::{Checksum, ManifestEntry};

/// What is hashed at once is worth a thread of its own from here on.
const LARGE: usize = 64 << 10;

/// A running digest.
pub(super) struct Sum {
    context: Context,
    is_sha256: bool,
    bytes: u64,
}

impl Sum {
    /// Over nothing yet.
    pub(super) fn new(is_sha256: bool) -> Self {
        let algorithm = if is_sha256 { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY };
        Self {
            context: Context::new(algorithm),
            is_sha256,
            bytes: 0,
        }
    }

    /// Takes in the next bytes and gives them back; away from the async threads where it takes time. `None` where that thread was lost.
    pub(super) async fn take(mut self, buf: Buf) -> Option<(Self, Buf)> {
        let is_large = buf.len() >= LARGE;
        let add = move || {
            self.bytes += buf.len() as u64;
            self.context.update(&buf);
            (self, buf)
        };
        if !is_large {
            return Some(add());
        }
        tokio::task::spawn_blocking(add).await.ok()
    }

    /// Bytes up to now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the server says otherwise, in words. `None` where it says the same, or nothing.
    pub(super) fn mismatch(self, entry: &ManifestEntry) -> Option<String> {
        if let Some(size) = entry.size.filter(|size| *size != self.bytes) {
            return Some(format!(
                "the host says that it sent {size} bytes, and {} arrived",
                self.bytes
            ));
        }
        let digest = self.context.finish();
        let ours = hex(digest.as_ref());
        // A digest of another kind than was asked for says nothing.
        let ((Some(Checksum::Sha1(theirs)), false) | (Some(Checksum::Sha256(theirs)), true)) =
            (&entry.checksum, self.is_sha256)
        else {
            return None;
        };
        let kind = if self.is_sha256 { "SHA-256" } else { "SHA-1" };
        (*theirs != ours).then(|| format!("the host says that it sent bytes of {kind} {theirs}, and {ours} arrived"))
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
