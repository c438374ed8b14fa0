//! The part of the spec that cannot change once a migration is under way.
//!
//! A cluster refuses such a change by the CRD's rules. Where it does not know them (Kubernetes before 1.25 drops them), the
//! change comes through; then the migration goes by the copy that it keeps in its status, so that what was begun with one
//! source, target and storage is brought to its end, or undone, with the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DiskFormat, MigrationStorage, NetworkHint, ObjectReference, ResourceHints, VMMigration, VMMigrationSpec};

/// Declares the fields once: the struct, taking them from a spec, putting them back, and naming those that differ.
macro_rules! accepted {
    ($($(#[$meta:meta])* $field:ident: $type:ty = $name:literal,)+) => {
        /// Source, target and storage of a migration, as they were when it left Pending.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct AcceptedSpec {
            $(
                #[doc = concat!("As `spec.", $name, "` was.")]
                $(#[$meta])*
                pub $field: $type,
            )+
            /// Where the target's disks go by the hint or the Provider's default as of validation, `-` where neither says.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub settled_storage: Option<String>,
        }

        impl AcceptedSpec {
            /// These fields of a spec.
            pub fn of(spec: &VMMigrationSpec) -> Self {
                Self { $($field: spec.$field.clone(),)+ settled_storage: None }
            }

            /// Puts them into a spec.
            pub fn put_into(&self, spec: &mut VMMigrationSpec) {
                $(spec.$field.clone_from(&self.$field);)+
            }

            /// The fields in which a spec differs: `spec.targetName`.
            pub fn differences(&self, spec: &VMMigrationSpec) -> Vec<&'static str> {
                let mut found = Vec::new();
                $(if self.$field != spec.$field {
                    found.push(concat!("spec.", $name));
                })+
                found
            }
        }
    };
}

accepted! {
    source_name: String = "sourceName",
    source_namespace: String = "sourceNamespace",
    target_provider_ref: ObjectReference = "targetProviderRef",
    target_name: String = "targetName",
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_namespace: Option<String> = "targetNamespace",
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_storage_hint: Option<String> = "targetStorageHint",
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_disk_format: Option<DiskFormat> = "targetDiskFormat",
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_resource_hints: Option<ResourceHints> = "targetResourceHints",
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    target_network_hints: Vec<NetworkHint> = "targetNetworkHints",
    storage: MigrationStorage = "storage",
}

impl VMMigration {
    /// The spec that the migration goes by: as it is now, or with the fields that were accepted.
    #[must_use]
    pub fn effective_spec(&self) -> VMMigrationSpec {
        let mut spec = self.spec.clone();
        let accepted = self.status.as_ref().and_then(|status| status.accepted_spec.as_ref());
        if let Some(accepted) = accepted {
            accepted.put_into(&mut spec);
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules;

    fn spec() -> VMMigrationSpec {
        serde_json::from_value(json!({
            "sourceName": "web", "sourceNamespace": "default", "targetProviderRef": {"name": "b"}, "targetName": "web-2",
            "storage": {"type": "nfs", "path": "/mnt"}
        }))
        .unwrap()
    }

    #[test]
    fn the_accepted_fields_are_those_that_the_rules_freeze() {
        let frozen = rules::MIGRATION.iter().filter(|rule| rule.rule.contains("oldSelf"));
        let mut frozen: Vec<_> = frozen.map(|rule| rule.field.trim_start_matches('.')).collect();
        frozen.sort_unstable();
        let other: VMMigrationSpec = serde_json::from_value(json!({
            "sourceName": "x", "sourceNamespace": "x", "targetProviderRef": {"name": "x"}, "targetName": "x",
            "targetNamespace": "x", "targetStorageHint": "x", "targetDiskFormat": "raw", "targetResourceHints": {"cpu": 1},
            "targetNetworkHints": [{"name": "eth0", "bridge": "x"}], "storage": {"type": "nfs", "path": "/x"}
        }))
        .unwrap();
        let accepted = AcceptedSpec::of(&spec());
        let mut differ = accepted.differences(&other);
        differ.sort_unstable();
        assert_eq!(differ, frozen);
        let mut put = other;
        accepted.put_into(&mut put);
        assert_eq!(put, spec());
        assert!(accepted.differences(&spec()).is_empty());
    }

    #[test]
    fn policies_are_not_accepted_but_followed() {
        let mut migration = VMMigration::new("m", spec());
        migration.status.get_or_insert_default().accepted_spec = Some(AcceptedSpec::of(&spec()));
        migration.spec.target_name = "other".into();
        migration.spec.retry_policy.max_attempts = 9;
        let effective = migration.effective_spec();
        assert_eq!(
            (effective.target_name.as_str(), effective.retry_policy.max_attempts),
            ("web-2", 9)
        );
    }
}
