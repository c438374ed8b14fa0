//! What can go wrong with a state directory.

use std::path::Path;

use vmferry_fault::{Class, Fault};

/// A failure of a state directory.
pub type Error = Fault<Kind>;

/// The kinds of failure: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Another process works there.
    Locked,
    /// A file there is not what was written.
    Corrupt,
    /// It is no state directory, or one of a newer version.
    Foreign,
    /// The file system said no.
    Io,
}

impl vmferry_fault::Kind for Kind {
    fn class(self) -> Class {
        match self {
            Self::Locked | Self::Io => Class::Retryable,
            Self::Corrupt | Self::Foreign => Class::Permanent,
        }
    }
}

/// The file system's answer about a path.
pub(crate) fn io(action: &'static str, path: &Path, error: std::io::Error) -> Error {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Some("check its owner and mode, or choose another folder with --state"),
        std::io::ErrorKind::StorageFull => Some("make room there, or choose another folder with --state"),
        _ => None,
    };
    let fault = Error::new(Kind::Io, action, path.display().to_string()).source(error);
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}
