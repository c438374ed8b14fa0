//! What can go wrong between a disk and staging.

use vmferry_fault::{Class, Fault, Kind as FaultKind};

/// A failure while moving a disk.
pub type Error = Fault<Kind>;

/// The kinds of failure while moving a disk: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The source's disk, or the volume that is read back.
    Source(vmferry_provider::Kind),
    /// The target's volume.
    Target(vmferry_provider::Kind),
    /// The staging store.
    Staging(vmferry_staging::Kind),
    /// The image format: of the disk as it should be staged, or as it should arrive.
    Image(vmferry_image::Kind),
    /// The frozen state is gone: freeze again, export again.
    FrozenStateGone,
    /// The staged object is not the one that was exported: export again.
    StagedCorrupt,
    /// The volume does not hold what was written to it: import again.
    VolumeCorrupt,
    /// Whoever asked for it called it off.
    Cancelled,
    /// No byte moved for a long time.
    Stalled,
    /// vmferry did something that it never should.
    Bug,
}

impl FaultKind for Kind {
    fn class(self) -> Class {
        match self {
            Self::Source(kind) | Self::Target(kind) => kind.class(),
            Self::Staging(kind) => kind.class(),
            Self::Image(kind) => kind.class(),
            Self::FrozenStateGone | Self::StagedCorrupt | Self::VolumeCorrupt | Self::Cancelled | Self::Stalled => {
                Class::Retryable
            }
            Self::Bug => Class::Bug,
        }
    }
}

/// A failure of the source: a frozen state that is gone has its own kind here.
pub(crate) fn source(error: vmferry_provider::Error, object: &str) -> Error {
    let kind = match error.kind() {
        vmferry_provider::Kind::FrozenStateGone => Kind::FrozenStateGone,
        kind => Kind::Source(kind),
    };
    Error::new(kind, "read", object).source(error)
}

/// A failure of the target.
pub(crate) fn target(error: vmferry_provider::Error, object: &str) -> Error {
    Error::new(Kind::Target(error.kind()), "write", object).source(error)
}

/// A failure of the staging store.
pub(crate) fn staging(action: &'static str, object: &str) -> impl Fn(vmferry_staging::Error) -> Error {
    move |error| Error::new(Kind::Staging(error.kind()), action, object).source(error)
}

/// Whoever asked for it called it off.
pub(crate) fn cancelled(object: &str) -> Error {
    Error::new(Kind::Cancelled, "go on with", object).detail("it was called off")
}
