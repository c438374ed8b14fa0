//! Names of staged objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a staged object: segments of `a-z A-Z 0-9 . _ -`, joined by `/`; no segment is empty or starts with a dot.
/// So it is safe as an object key, in a URL and as a path below a folder, on every store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ObjectKey(String);

/// A text that is not an object key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not an object key: segments of letters, digits, '.', '_' and '-', not starting with '.', joined by '/', at most 512 bytes"
)]
pub struct InvalidKey(String);

impl ObjectKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the note that an import keeps while it reads this object. There is no object of that name.
    #[must_use]
    pub fn import(&self) -> Self {
        Self(format!("{self}.import"))
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let segment = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
        let valid = text.len() <= 512 && text.split('/').all(segment);
        valid
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| InvalidKey(text.to_owned()))
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_keys() {
        for good in ["a", "databases/mysql-primary/disk-0.qcow2", "A_1.b-c"] {
            assert_eq!(good.parse::<ObjectKey>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            ".hidden",
            "a/.b",
            "a b",
            "a\\b",
            "ü",
            "a\n",
            &"x".repeat(513),
        ] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad:?}");
        }
    }
}
