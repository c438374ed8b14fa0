//! What annotations ask of a migration: another try, or to give up.
//!
//! A request is a value that was not seen before. The value that was acted on is kept in the status, so that each acts once,
//! whoever looks and however often.

use crate::VMMigration;
use crate::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY};

/// No more characters than these of a value are kept and compared.
const LONGEST: usize = 253;

impl VMMigration {
    /// The value of the annotation `migration.virtrigaud.io/retry`, where it was not acted on yet.
    pub fn retry_requested(&self) -> Option<String> {
        let handled = self
            .status
            .as_ref()
            .and_then(|status| status.last_handled_retry.as_deref());
        self.requested(ANNOTATION_RETRY, handled)
    }

    /// The value of the annotation `migration.virtrigaud.io/cancel`, where it was not acted on yet.
    pub fn cancel_requested(&self) -> Option<String> {
        let handled = self
            .status
            .as_ref()
            .and_then(|status| status.last_handled_cancel.as_deref());
        self.requested(ANNOTATION_CANCEL, handled)
    }

    fn requested(&self, annotation: &str, handled: Option<&str>) -> Option<String> {
        let annotations = self.metadata.annotations.as_ref()?;
        let value: String = annotations.get(annotation)?.chars().take(LONGEST).collect();
        (!value.is_empty() && Some(value.as_str()) != handled).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(retry: &str, handled: Option<&str>) -> VMMigration {
        serde_json::from_value(json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration",
            "metadata": {"name": "m", "annotations": {ANNOTATION_RETRY: retry}},
            "spec": {
                "sourceName": "web", "sourceNamespace": "default", "targetProviderRef": {"name": "b"}, "targetName": "web-2",
                "storage": {"type": "nfs", "path": "/mnt"}
            },
            "status": {"lastHandledRetry": handled}
        }))
        .unwrap()
    }

    #[test]
    fn a_value_asks_once() {
        assert_eq!(migration("1", None).retry_requested().as_deref(), Some("1"));
        assert_eq!(migration("2", Some("1")).retry_requested().as_deref(), Some("2"));
        assert_eq!(migration("1", Some("1")).retry_requested(), None);
        assert_eq!(migration("", None).retry_requested(), None);
        assert_eq!(migration("1", None).cancel_requested(), None);
    }

    #[test]
    fn a_long_value_asks_once_too() {
        let long = "ä".repeat(1000);
        let kept = migration(&long, None).retry_requested().unwrap();
        assert_eq!(kept.chars().count(), LONGEST);
        assert_eq!(migration(&long, Some(&kept)).retry_requested(), None);
    }
}
