//! What can go wrong at a staging store.

use vmferry_fault::{Class, Fault};

/// A failure at a staging store.
pub type Error = Fault<Kind>;

/// The kinds of failure at a staging store: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The store, bucket or folder does not exist.
    NotFound,
    /// An object of that name exists already.
    NameTaken,
    /// The upload does not exist any more.
    UploadGone,
    /// The object is not the one that was opened: replaced, or cut short.
    Changed,
    /// The store does not answer, or the connection broke.
    Unreachable,
    /// The store refused the credentials or the operation.
    Denied,
    /// The certificate or host is not the one that is trusted.
    Untrusted,
    /// A value that was given makes no sense: a path, an endpoint.
    Invalid,
    /// The store answers in a way that it never should: it lies about a length, or ignores the range that was asked for.
    Unfit,
    /// The store asks for patience: too many requests, or overloaded.
    Busy,
    /// The store is full.
    NoSpace,
    /// The store failed in a way that may pass.
    Failed,
    /// vmferry did something that it never should.
    Bug,
}

impl vmferry_fault::Kind for Kind {
    fn class(self) -> Class {
        match self {
            Self::UploadGone | Self::Changed | Self::Unreachable | Self::Busy | Self::NoSpace | Self::Failed => {
                Class::Retryable
            }
            Self::NotFound | Self::NameTaken | Self::Denied | Self::Untrusted | Self::Invalid | Self::Unfit => {
                Class::Permanent
            }
            Self::Bug => Class::Bug,
        }
    }
}
