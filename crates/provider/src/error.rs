//! What can go wrong at a hypervisor.

use vmferry_fault::{Class, Fault};

/// A failure at a hypervisor.
pub type Error = Fault<Kind>;

/// The kinds of failure at a hypervisor: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The VM, volume, pool or network does not exist.
    NotFound,
    /// The name exists and is not ours.
    NameTaken,
    /// The host does not answer, or the connection broke.
    Unreachable,
    /// The host refused the credentials or the operation.
    Denied,
    /// The host's key or certificate is not the one that is trusted.
    Untrusted,
    /// The host cannot do it: a format, a disk type, a version.
    Unsupported,
    /// A value that was given makes no sense: an endpoint, a path, a size.
    Invalid,
    /// A disk of the source refers to something that must not be followed.
    Hostile,
    /// The target has too little space.
    NoSpace,
    /// The frozen state is gone: the VM was restarted, the job ended, the files changed.
    FrozenStateGone,
    /// Another operation holds the VM or the volume.
    Busy,
    /// The host failed in a way that may pass.
    Failed,
    /// vmferry did something that it never should.
    Bug,
}

impl vmferry_fault::Kind for Kind {
    fn class(self) -> Class {
        match self {
            Self::Unreachable | Self::NoSpace | Self::FrozenStateGone | Self::Busy | Self::Failed => Class::Retryable,
            Self::NotFound
            | Self::NameTaken
            | Self::Denied
            | Self::Untrusted
            | Self::Unsupported
            | Self::Invalid
            | Self::Hostile => Class::Permanent,
            Self::Bug => Class::Bug,
        }
    }
}
