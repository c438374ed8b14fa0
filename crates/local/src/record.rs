//! What is kept of a migration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmferry_api::VMMigration;

/// A migration, and where its manifests were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The migration with its status.
    pub migration: VMMigration,
    /// The files and folders that it was last applied from, absolute. Empty where they came from standard input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<PathBuf>,
}
