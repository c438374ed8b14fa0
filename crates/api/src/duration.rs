//! Durations as Go writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A duration in Go's form: `5m`, `1h30m`, `0s`, `1.5h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct GoDuration(pub Duration);

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a duration like 5m, 1h30m or 0s")]
pub struct ParseDurationError(pub String);

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        format!("{}s", duration.0.as_secs())
    }
}

impl TryFrom<String> for GoDuration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, ParseDurationError> {
        Err(ParseDurationError(text))
    }
}
