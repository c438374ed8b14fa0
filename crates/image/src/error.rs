//! How reading and laying out images fails.

use vmferry_fault::{Class, Fault, Kind as FaultKind};

/// A failure with an image.
pub type Error = Fault<Kind>;

/// The kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The image contradicts itself or its format.
    Corrupt,
    /// The image is sound, and uses something that vmferry does not read or write.
    Unsupported,
    /// The image is encrypted.
    Encrypted,
    /// The image names another file, as its backing file or a part of it, that must not be opened.
    Hostile,
    /// The image names another file that is not there.
    Missing,
    /// The bytes underneath could not be read.
    Io,
    /// vmferry itself is wrong.
    Bug,
}

impl FaultKind for Kind {
    fn class(self) -> Class {
        match self {
            Self::Io => Class::Retryable,
            Self::Bug => Class::Bug,
            Self::Corrupt | Self::Unsupported | Self::Encrypted | Self::Hostile | Self::Missing => Class::Permanent,
        }
    }
}

/// Why an image is refused, before it is said which image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
    pub(crate) remedy: &'static str,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>, remedy: &'static str) -> Self {
        let detail = detail.into();
        Self { kind, detail, remedy }
    }

    /// The error of opening the image of this format and name.
    pub(crate) fn of(self, format: &str, name: &str) -> Error {
        Fault::new(self.kind, "open", format!("{format} image {name}"))
            .detail(self.detail)
            .remedy(self.remedy)
    }
}
