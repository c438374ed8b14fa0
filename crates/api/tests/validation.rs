//! The rules, run over objects.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use serde_json::{Value, json};
use vmferry_api::{VMMigration, validate};

fn valid() -> Value {
    json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration",
        "metadata": { "name": "m", "namespace": "default" },
        "spec": {
            "sourceName": "web", "sourceNamespace": "default",
            "targetProviderRef": { "name": "b" }, "targetName": "web-2",
            "storage": { "type": "nfs", "path": "/mnt/staging" },
        }
    })
}

/// The valid migration with one value put in.
fn with(path: &str, value: Value) -> VMMigration {
    let mut object = valid();
    let mut node = &mut object["spec"];
    for step in path.split('.') {
        node = &mut node[step];
    }
    *node = value;
    serde_json::from_value(object).unwrap()
}

fn broken(migration: &VMMigration) -> Vec<String> {
    validate::migration(migration).iter().map(ToString::to_string).collect()
}

#[test]
fn a_bandwidth_limit_is_a_rate() {
    let annotated = |text: &str| {
        let mut object = valid();
        object["metadata"]["annotations"] = json!({ "migration.virtrigaud.io/bandwidth-limit": text });
        serde_json::from_value::<VMMigration>(object).unwrap()
    };
    let limit = validate::bandwidth_limit(&annotated("50MiB")).unwrap().unwrap();
    assert_eq!((limit.0.get(), broken(&annotated("50MiB"))), (50 << 20, Vec::new()));
    assert_eq!(
        broken(&annotated("50 Mbit")),
        [
            "metadata.annotations[migration.virtrigaud.io/bandwidth-limit]: \"50 Mbit\" is not a rate: write bytes per second, \
          64KiB or more, like 52428800, 50MiB or 1.5GB"
        ]
    );
}

#[test]
fn a_valid_migration_breaks_nothing() {
    assert_eq!(broken(&serde_json::from_value(valid()).unwrap()), Vec::<String>::new());
    for (path, value) in [
        ("storage", json!({ "type": "s3", "bucket": "b", "region": "r" })),
        ("storage", json!({ "type": "http", "endpoint": "https://h/exports" })),
        (
            "storage",
            json!({ "type": "nfs", "path": "/a..b/c", "endpoint": "nfs.example.com" }),
        ),
        ("targetName", json!("a")),
        ("targetName", json!("Web_01.example-x")),
        (
            "targetNetworkHints",
            json!([{ "name": "eth0", "network": "VM Network" }, { "name": "eth1", "bridge": "virbr0" }]),
        ),
        ("retryPolicy", json!({ "backoffDuration": "30m" })),
        (
            "retryPolicy",
            json!({ "maxAttempts": 0, "backoffDuration": "0", "maxBackoffDuration": "0s" }),
        ),
        (
            "retryPolicy",
            json!({ "backoffDuration": "1.5h", "maxBackoffDuration": "1h30m" }),
        ),
        (
            "retryPolicy",
            json!({ "backoffDuration": "5µs", "maxBackoffDuration": "100ms" }),
        ),
        ("targetResourceHints", json!({ "cpu": 8, "memory": 16384, "disk": 500 })),
    ] {
        assert_eq!(
            broken(&with(path, value.clone())),
            Vec::<String>::new(),
            "{path} = {value}"
        );
    }
}

#[test]
fn each_broken_rule_names_the_field_and_what_is_allowed() {
    for (path, value, field, says) in [
        (
            "storage",
            json!({ "type": "s3", "region": "r" }),
            "spec.storage.bucket",
            "needs a bucket",
        ),
        (
            "storage",
            json!({ "type": "s3", "bucket": "", "region": "r" }),
            "spec.storage.bucket",
            "needs a bucket",
        ),
        (
            "storage",
            json!({ "type": "s3", "bucket": "b" }),
            "spec.storage.region",
            "needs a region",
        ),
        (
            "storage",
            json!({ "type": "http" }),
            "spec.storage.endpoint",
            "needs an endpoint",
        ),
        (
            "storage",
            json!({ "type": "http", "endpoint": "ftp://h" }),
            "spec.storage.endpoint",
            "https://",
        ),
        ("storage", json!({ "type": "nfs" }), "spec.storage.path", "needs a path"),
        (
            "storage",
            json!({ "type": "nfs", "path": "mnt" }),
            "spec.storage.path",
            "absolute",
        ),
        (
            "storage",
            json!({ "type": "nfs", "path": "/mnt/../etc" }),
            "spec.storage.path",
            "'..'",
        ),
        (
            "storage",
            json!({ "type": "nfs", "path": "/mnt\n" }),
            "spec.storage.path",
            "control",
        ),
        (
            "storage",
            json!({ "type": "nfs", "path": "/m", "credentialsSecretRef": {} }),
            "spec.storage.credentialsSecretRef.name",
            "name",
        ),
        ("targetName", json!(""), "spec.targetName", "1 to 63"),
        ("targetName", json!("a".repeat(64)), "spec.targetName", "1 to 63"),
        ("targetName", json!("a/b"), "spec.targetName", "letters, digits"),
        ("targetName", json!("a\nb"), "spec.targetName", "letters, digits"),
        ("targetName", json!("a\n"), "spec.targetName", "letters, digits"),
        ("targetName", json!(".."), "spec.targetName", "letters, digits"),
        ("targetName", json!("-rf"), "spec.targetName", "letters, digits"),
        ("sourceName", json!(""), "spec.sourceName", "1 to 253"),
        (
            "targetProviderRef",
            json!({ "name": "" }),
            "spec.targetProviderRef.name",
            "1 to 253",
        ),
        (
            "targetNetworkHints",
            json!([{ "name": "eth0" }]),
            "spec.targetNetworkHints[0]",
            "exactly one",
        ),
        (
            "targetNetworkHints",
            json!([{ "name": "eth0", "network": "n", "bridge": "b" }]),
            "spec.targetNetworkHints[0]",
            "exactly one",
        ),
        (
            "targetNetworkHints",
            json!([{ "name": "e", "network": "n" }, { "name": "e", "bridge": "b" }]),
            "spec.targetNetworkHints",
            "a name of its own",
        ),
        (
            "targetResourceHints",
            json!({ "cpu": 0 }),
            "spec.targetResourceHints.cpu",
            "1 to 8192",
        ),
        (
            "targetResourceHints",
            json!({ "memory": 0 }),
            "spec.targetResourceHints.memory",
            "1 to",
        ),
        (
            "targetResourceHints",
            json!({ "disk": 0 }),
            "spec.targetResourceHints.disk",
            "1 to",
        ),
        (
            "retryPolicy",
            json!({ "backoffDuration": "31m" }),
            "spec.retryPolicy.maxBackoffDuration",
            "at least backoffDuration",
        ),
        (
            "retryPolicy",
            json!({ "maxAttempts": 1001 }),
            "spec.retryPolicy.maxAttempts",
            "0 to 1000",
        ),
    ] {
        let found = broken(&with(path, value.clone()));
        assert_eq!(found.len(), 1, "{path} = {value}: {found:?}");
        assert!(
            found[0].starts_with(field) && found[0].contains(says),
            "{path} = {value}: {}",
            found[0]
        );
    }
}

#[test]
fn a_message_shows_the_value() {
    let found = broken(&with("storage", json!({ "type": "nfs", "path": "mnt" })));
    assert!(found[0].starts_with("spec.storage.path is \"mnt\": "), "{}", found[0]);
}

fn under_way(phase: &str) -> VMMigration {
    let mut object = valid();
    object["status"] = json!({ "phase": phase });
    serde_json::from_value(object).unwrap()
}

#[test]
fn source_target_and_storage_are_frozen_once_under_way() {
    for (path, value) in [
        ("sourceName", json!("x")),
        ("sourceNamespace", json!("x")),
        ("targetProviderRef", json!({ "name": "x" })),
        ("targetName", json!("x")),
        ("targetNamespace", json!("x")),
        ("targetStorageHint", json!("x")),
        ("targetDiskFormat", json!("raw")),
        ("targetResourceHints", json!({ "cpu": 2 })),
        ("targetNetworkHints", json!([{ "name": "e", "bridge": "b" }])),
        ("storage", json!({ "type": "nfs", "path": "/other" })),
    ] {
        let new = with(path, value);
        assert_eq!(validate::migration_update(&new, &under_way("Pending")), [], "{path}");
        for phase in ["Validating", "Transferring", "Ready", "Failed"] {
            let found = validate::migration_update(&new, &under_way(phase));
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert_eq!(found[0].field, format!("spec.{path}"));
        }
        // Taking it away again is a change, too.
        let mut old = new.clone();
        old.status = under_way("Importing").status;
        let found = validate::migration_update(&serde_json::from_value(valid()).unwrap(), &old);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
    }
}

#[test]
fn policies_may_change_under_way() {
    for (path, value) in [
        ("retryPolicy", json!({ "maxAttempts": 9 })),
        ("cleanupPolicy", json!({ "deleteSource": true })),
    ] {
        assert_eq!(
            validate::migration_update(&with(path, value), &under_way("Transferring")),
            []
        );
    }
}
