//! What the state directory says of a migration.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vmferry_testkit::files_below;

/// The phases that a migration passes, in order.
pub const PHASES: [&str; 10] = [
    "Pending",
    "Validating",
    "Snapshotting",
    "Exporting",
    "Transferring",
    "Converting",
    "Importing",
    "Creating",
    "ValidatingTarget",
    "Ready",
];

/// A migration as it was last saved.
#[derive(Debug, Clone)]
pub struct Record(pub Value);

impl Record {
    /// Reads it; none while there is none.
    pub fn read(state: &Path, name: &str) -> Option<Self> {
        files_below(&state.join("migrations")).iter().find_map(|file| {
            // A file that is being replaced is there under a hidden name as well, and that one does not count yet.
            let name_of_file = file.file_name()?.to_str()?;
            if name_of_file.starts_with('.') {
                return None;
            }
            let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
            (value["migration"]["metadata"]["name"] == name).then(|| Self(value["migration"].clone()))
        })
    }

    /// A field of the status, as text; empty where it is not set.
    pub fn status(&self, field: &str) -> String {
        match &self.0["status"][field] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// The phase; Pending before the first step.
    pub fn phase(&self) -> String {
        Some(self.status("phase"))
            .filter(|phase| !phase.is_empty())
            .unwrap_or_else(|| "Pending".to_owned())
    }

    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<Value> {
        self.0["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|condition| condition["type"] == kind)
            .cloned()
    }

    /// Whether a condition is `True`.
    pub fn holds(&self, kind: &str) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition["status"] == "True")
    }
}
