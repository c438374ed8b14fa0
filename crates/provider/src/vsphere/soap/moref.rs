//! References to managed objects.

use std::fmt;

/// A managed object: its type and its id, which is unique at its server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Moref {
    /// Its type, as in `VirtualMachine`.
    pub(crate) kind: String,
    /// Its id, as in `vm-42`.
    pub(crate) value: String,
}

impl Moref {
    /// The object of this type with this id.
    pub(crate) fn new(kind: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            value: value.into(),
        }
    }

    /// The VM with this id.
    pub(crate) fn vm(value: impl Into<String>) -> Self {
        Self::new("VirtualMachine", value)
    }
}

impl fmt::Display for Moref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}
