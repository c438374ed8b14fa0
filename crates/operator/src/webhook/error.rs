//! What can go wrong with the webhook.

use vmferry_fault::{Class, Fault};

/// A failure of the webhook.
pub type Error = Fault<Kind>;

/// The kinds of failure: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// There is no certificate, or it is none.
    Certificate,
    /// The address cannot be listened at.
    Address,
    /// The API server did not say whether somebody may do something.
    Access,
    /// What was asked is no review.
    Request,
}

impl vmferry_fault::Kind for Kind {
    fn class(self) -> Class {
        match self {
            Self::Access => Class::Retryable,
            Self::Certificate | Self::Address | Self::Request => Class::Permanent,
        }
    }
}
