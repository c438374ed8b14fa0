//! What is wrong with a manifest, and where.

use std::error::Error;
use std::fmt;

/// Where an object was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File name, or `stdin`.
    pub source: String,
    /// Number of the document in it, from 1.
    pub document: usize,
    /// Number of the item, from 1, where the document is a `List`.
    pub item: Option<usize>,
}

impl Origin {
    /// The item at `index` (from 0) of the `List` here.
    pub(super) fn item(&self, index: usize) -> Self {
        Self {
            item: Some(index + 1),
            ..self.clone()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.source, self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Where.
    pub origin: Origin,
    /// The line of the file, where it is known.
    pub line: Option<u64>,
    /// The object, as `Kind namespace/name`, where it is known.
    pub object: Option<String>,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl ManifestError {
    pub(super) fn new(origin: Origin, detail: impl Into<String>) -> Self {
        Self {
            origin,
            line: None,
            object: None,
            detail: detail.into(),
        }
    }

    /// Names the object.
    #[must_use]
    pub(super) fn of(mut self, object: String) -> Self {
        self.object = Some(object);
        self
    }

    /// Names the line.
    #[must_use]
    pub(super) fn at(mut self, line: Option<u64>) -> Self {
        self.line = line;
        self
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl Error for ManifestError {}
