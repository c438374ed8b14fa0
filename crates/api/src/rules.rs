//! What a migration must be like, beyond the types: one table of CEL rules.
//!
//! The table is the only source. The CRD carries it as `x-kubernetes-validations`, so that a cluster refuses what breaks
//! it, and [`crate::validate`] runs the same text over the same schema, so that the command line does. Simple bounds
//! (lengths, ranges, enums, patterns) are in the schema itself, on the fields of the types.
//!
//! Architecture Invariant: every list and text that a rule walks has an upper bound in the schema; without one, a cluster
//! estimates the rule as too costly and refuses the whole CRD.

use serde_json::{Value, json};

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The schema node that `self` is, as the names of properties from the root; `[]` is the items of a list.
    pub at: &'static [&'static str],
    /// The CEL expression that must be true. One that names `oldSelf` is only looked at when an object changes.
    pub rule: &'static str,
    /// What is allowed, and what to do.
    pub message: &'static str,
    /// The field that is at fault, from `at`; empty for `at` itself.
    pub field: &'static str,
    /// Kubernetes' word for the kind of error.
    pub reason: Reason,
}

/// Kubernetes' words for the kinds of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The value is not allowed.
    Invalid,
    /// A value is missing.
    Required,
    /// The value may not be set, or not be changed.
    Forbidden,
}

impl Reason {
    /// As the CRD has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Forbidden => "FieldValueForbidden",
        }
    }
}

impl Rule {
    /// The rule as an entry of `x-kubernetes-validations`.
    pub fn to_json(&self) -> Value {
        let mut entry = json!({ "rule": self.rule, "message": self.message, "reason": self.reason.as_str() });
        if !self.field.is_empty() {
            entry["fieldPath"] = json!(self.field);
        }
        entry
    }
}

/// The migration has not begun, so that everything may still change.
macro_rules! pending {
    () => {
        "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Pending'"
    };
}

/// A field of the spec that stays as it is once the migration has left Pending.
macro_rules! frozen {
    ($field:literal) => {
        frozen!($field, rule: concat!("self.spec.", $field, " == oldSelf.spec.", $field, " || ", pending!()))
    };
    ($field:literal, optional) => {
        frozen!($field, rule: concat!(
            "(has(self.spec.", $field, ") ? (has(oldSelf.spec.", $field, ") && self.spec.", $field, " == oldSelf.spec.",
            $field, ") : !has(oldSelf.spec.", $field, ")) || ", pending!()
        ))
    };
    ($field:literal, rule: $rule:expr) => {
        Rule {
            at: &[],
            rule: $rule,
            message: "the migration is under way and this field cannot change any more: set it back, or delete the \
                      migration and create it anew",
            field: concat!(".spec.", $field),
            reason: Reason::Forbidden,
        }
    };
}

const STORAGE: &[&str] = &["spec", "storage"];

/// The rules of `VMMigration`.
pub const MIGRATION: &[Rule] = &[
    Rule {
        at: &["spec", "targetName"],
        rule: "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$')",
        message: "a VM's name is made of letters, digits, '.', '_' and '-', starts with a letter or digit and does not \
                  end with '.' or '-': hypervisors use it in file names",
        field: "",
        reason: Reason::Invalid,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 's3' || (has(self.bucket) && self.bucket != '')",
        message: "storage of type s3 needs a bucket: set spec.storage.bucket",
        field: ".bucket",
        reason: Reason::Required,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 's3' || (has(self.region) && self.region != '')",
        message: "storage of type s3 needs a region: set spec.storage.region, e.g. us-east-1",
        field: ".region",
        reason: Reason::Required,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 'http' || (has(self.endpoint) && self.endpoint != '')",
        message: "storage of type http needs an endpoint: set spec.storage.endpoint, e.g. https://storage.example.com/exports",
        field: ".endpoint",
        reason: Reason::Required,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 'http' || !has(self.endpoint) || self.endpoint == '' || self.endpoint.matches('^https?://[^/]')",
        message: "the endpoint of storage of type http is a URL that starts with https:// or http://",
        field: ".endpoint",
        reason: Reason::Invalid,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 'nfs' || (has(self.path) && self.path != '')",
        message: "storage of type nfs needs a path: set spec.storage.path to the mounted folder or, with an endpoint, to the folder that the server exports, e.g. /mnt/vm-migrations",
        field: ".path",
        reason: Reason::Required,
    },
    Rule {
        at: STORAGE,
        rule: "self.type != 'nfs' || !has(self.path) || self.path == '' || \
               (self.path.startsWith('/') && !self.path.matches('(^|/)[.][.](/|$)') && !self.path.matches('[[:cntrl:]]'))",
        message: "the path of storage of type nfs is absolute, without '..' and control characters",
        field: ".path",
        reason: Reason::Invalid,
    },
    Rule {
        at: STORAGE,
        rule: "!has(self.credentialsSecretRef) || (has(self.credentialsSecretRef.name) && self.credentialsSecretRef.name != '')",
        message: "a reference to a Secret needs its name: set spec.storage.credentialsSecretRef.name",
        field: ".credentialsSecretRef.name",
        reason: Reason::Required,
    },
    Rule {
        at: &["spec", "targetNetworkHints"],
        rule: "self.all(a, self.exists_one(b, a.name == b.name))",
        message: "each network interface has one hint: give every hint a name of its own, eth0 for the first interface",
        field: "",
        reason: Reason::Invalid,
    },
    Rule {
        at: &["spec", "targetNetworkHints", "[]"],
        rule: "has(self.network) != has(self.bridge)",
        message: "a network hint has exactly one of network and bridge",
        field: "",
        reason: Reason::Invalid,
    },
    Rule {
        at: &["spec", "retryPolicy"],
        rule: "duration(self.backoffDuration) <= duration(self.maxBackoffDuration)",
        message: "maxBackoffDuration is at least backoffDuration: raise the one or lower the other",
        field: ".maxBackoffDuration",
        reason: Reason::Invalid,
    },
    frozen!("sourceName"),
    frozen!("sourceNamespace"),
    frozen!("targetProviderRef"),
    frozen!("targetName"),
    frozen!("targetNamespace", optional),
    frozen!("targetStorageHint", optional),
    frozen!("targetDiskFormat", optional),
    frozen!("targetResourceHints", optional),
    frozen!("targetNetworkHints", optional),
    frozen!("storage"),
];
