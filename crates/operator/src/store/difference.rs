//! What has to be written.

use serde_json::{Map, Value, json};
use vmferry_api::VMMigration;

/// What differs between what is known and what a step decided.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    /// Finalizers and labels, as a merge patch of the metadata.
    pub metadata: Option<Value>,
    /// Whether the status differs.
    pub status: bool,
}

impl Difference {
    pub(super) fn between(base: &VMMigration, new: &VMMigration) -> Self {
        let mut patch = Map::new();
        let finalizers = |migration: &VMMigration| migration.metadata.finalizers.clone().unwrap_or_default();
        if finalizers(base) != finalizers(new) {
            patch.insert("finalizers".to_owned(), json!(finalizers(new)));
        }
        if let Some(labels) = labels(base, new) {
            patch.insert("labels".to_owned(), labels);
        }
        Self {
            metadata: (!patch.is_empty()).then_some(Value::Object(patch)),
            status: base.status != new.status,
        }
    }
}

/// The labels that differ: a merge leaves all others as they are.
fn labels(base: &VMMigration, new: &VMMigration) -> Option<Value> {
    let (base, new) = (
        base.metadata.labels.clone().unwrap_or_default(),
        new.metadata.labels.clone().unwrap_or_default(),
    );
    let set = new.iter().filter(|(name, value)| base.get(*name) != Some(value));
    let mut differ: Map<_, _> = set.map(|(name, value)| (name.clone(), json!(value))).collect();
    let removed = base.keys().filter(|name| !new.contains_key(*name));
    differ.extend(removed.map(|name| (name.clone(), Value::Null)));
    (!differ.is_empty()).then_some(Value::Object(differ))
}

#[cfg(test)]
mod tests {
    use vmferry_api::VMMigrationStatus;

    use super::*;

    fn migration(metadata: &Value) -> VMMigration {
        let value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration", "metadata": metadata,
            "spec": {
                "sourceName": "a", "sourceNamespace": "n", "targetProviderRef": {"name": "p"}, "targetName": "b",
                "storage": {"type": "nfs", "path": "/m"}
            }
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        let base = migration(&json!({"labels": {"app": "db", "old": "x"}, "finalizers": ["other"]}));
        let none = Difference {
            metadata: None,
            status: false,
        };
        assert_eq!(Difference::between(&base, &base), none);

        let mut new = migration(&json!({"labels": {"app": "db", "new": "y"}, "finalizers": ["other", "ours"]}));
        new.status = Some(VMMigrationStatus::default());
        let expected = json!({"finalizers": ["other", "ours"], "labels": {"new": "y", "old": null}});
        let both = Difference {
            metadata: Some(expected),
            status: true,
        };
        assert_eq!(Difference::between(&base, &new), both);
    }

    #[test]
    fn no_finalizers_and_none_are_the_same() {
        let (none, empty) = (migration(&json!({})), migration(&json!({"finalizers": []})));
        assert_eq!(Difference::between(&none, &empty).metadata, None);
        let held = migration(&json!({"finalizers": ["ours"]}));
        let patch = Difference::between(&held, &empty).metadata;
        assert_eq!(patch, Some(json!({"finalizers": []})));
    }
}
