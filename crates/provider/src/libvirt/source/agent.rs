//! Quiescing the guest's file systems through its agent.

use std::fmt;
use std::time::Duration;

use crate::libvirt::{Libvirt, sys};
use crate::{Kind, VmSelector};

/// How long the guest may take to freeze its file systems. Its writes stand still meanwhile.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// What became of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quiesced {
    /// So many file systems stand still.
    Yes(i32),
    /// It did not work, and is not frozen.
    No(String),
    /// It did not answer in time, and may freeze yet.
    Late,
}

impl Quiesced {
    /// Whether the guest must be thawed.
    pub fn may_be_frozen(&self) -> bool {
        !matches!(self, Self::No(_))
    }
}

impl fmt::Display for Quiesced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes(count) => write!(f, "{count} file systems frozen by the guest agent"),
            Self::No(why) => write!(f, "crash-consistent: {why}"),
            Self::Late => write!(
                f,
                "crash-consistent: the guest agent did not answer within {} s",
                FREEZE_LIMIT.as_secs()
            ),
        }
    }
}

/// Freezes the guest's file systems.
pub(super) async fn freeze(libvirt: &Libvirt, vm: &VmSelector) -> Quiesced {
    let freeze = libvirt.with_domain("freeze the file systems of", vm, |_, domain| sys::fs_freeze(domain));
    match tokio::time::timeout(FREEZE_LIMIT, freeze).await {
        Ok(Ok(count)) => Quiesced::Yes(count),
        Ok(Err(error)) if error.kind() == Kind::Unreachable => Quiesced::Late,
        Ok(Err(error)) => Quiesced::No(error.to_string()),
        Err(_) => Quiesced::Late,
    }
}

/// Thaws the guest's file systems. A guest that is not frozen does not mind; one that does not answer is left to the log.
pub(super) async fn thaw(libvirt: &Libvirt, vm: &VmSelector) {
    let thaw = libvirt.with_domain("thaw the file systems of", vm, |_, domain| sys::fs_thaw(domain));
    if let Err(error) = thaw.await {
        tracing::warn!(%error, "the guest's file systems may still be frozen");
    }
}
