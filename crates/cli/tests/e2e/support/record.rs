//! What is known of a migration.

use serde_json::Value;

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

    /// Whether it is Ready or Failed for good.
    pub fn is_over(&self) -> bool {
        !self.status("completionTime").is_empty()
    }
}
