//! What an API server takes, fills in and gives back; the reference's examples among it.

use serde_json::{Value, json};
use vmferry_testkit::kube::{Cluster, ClusterSpec};

const API: &str = "infra.virtrigaud.io/v1beta1";

/// A cluster with our kinds and no controllers.
pub fn cluster() -> Cluster {
    Cluster::with(&ClusterSpec {
        crds: vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect(),
        controllers: false,
        ..ClusterSpec::default()
    })
}

/// A migration with nothing but what it needs.
pub fn minimal(name: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "VMMigration", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "sourceName": "my-source-vm", "sourceNamespace": "default", "targetProviderRef": { "name": "vsphere-prod" },
            "targetName": "migrated-vm", "storage": { "type": "nfs", "path": "/mnt/vm-migrations" },
        },
    })
}

/// Whether everything in `part` is in `whole` as it is.
#[track_caller]
pub fn assert_contains(whole: &Value, part: &Value) {
    match part {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| assert_contains(&whole[name], value)),
        Value::Array(items) => {
            assert_eq!(
                whole.as_array().map(Vec::len),
                Some(items.len()),
                "{whole} is not {part}"
            );
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| assert_contains(&whole[index], item));
        }
        _ => assert_eq!(whole, part),
    }
}

/// The reference's "Complete Example", as it stands there.
const COMPLETE: &str = include_str!("complete-example.yaml");

#[test]
fn the_complete_example_applies_unchanged_and_so_does_its_status() {
    let cluster = cluster();
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "databases" } });
    cluster.apply(&namespace).unwrap();
    let example: Value = serde_saphyr::from_str(COMPLETE).unwrap();
    let applied = cluster.apply(&example).unwrap();
    assert_contains(&applied["spec"], &example["spec"]);
    assert_contains(&applied["metadata"]["labels"], &example["metadata"]["labels"]);
    assert_eq!(applied["status"], Value::Null, "a user does not write the status");
    let status = json!({
        "apiVersion": API, "kind": "VMMigration",
        "metadata": { "name": "production-db-migration", "namespace": "databases" }, "status": example["status"],
    });
    let written = status_of(&cluster, &status);
    assert_contains(&written["status"], &example["status"]);
}

/// Writes a status, as the controller does: by server-side apply.
fn status_of(cluster: &Cluster, object: &Value) -> Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let name = object["metadata"]["name"].as_str().unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let api: kube::Api<vmferry_api::VMMigration> = kube::Api::namespaced(cluster.client().await, namespace);
        let how = kube::api::PatchParams::apply("test").force();
        let written = api
            .patch_status(name, &how, &kube::api::Patch::Apply(object))
            .await
            .unwrap();
        serde_json::to_value(written).unwrap()
    })
}

#[test]
fn defaults_are_those_of_the_reference() {
    let cluster = cluster();
    let applied = cluster.apply(&minimal("m")).unwrap();
    let policies = json!({
        "cleanupPolicy": { "deleteIntermediate": true, "deleteSnapshot": true, "deleteSource": false },
        "retryPolicy": { "maxAttempts": 3, "backoffDuration": "5m", "maxBackoffDuration": "30m" },
    });
    assert_contains(&applied["spec"], &policies);
    let fields: Vec<_> = applied["spec"].as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), 7, "nothing else is filled in: {fields:?}");
    let mut partly = minimal("n");
    partly["spec"]["cleanupPolicy"] = json!({ "deleteSource": true });
    partly["spec"]["retryPolicy"] = json!({ "maxAttempts": 0 });
    let applied = cluster.apply(&partly).unwrap();
    assert_contains(
        &applied["spec"],
        &json!({
            "cleanupPolicy": { "deleteIntermediate": true, "deleteSnapshot": true, "deleteSource": true },
            "retryPolicy": { "maxAttempts": 0, "backoffDuration": "5m", "maxBackoffDuration": "30m" },
        }),
    );
}

#[test]
fn every_fragment_of_the_reference_is_taken_and_kept() {
    let cluster = cluster();
    for (index, fragment) in [
        json!({ "targetProviderRef": { "name": "vsphere-prod", "namespace": "default" } }),
        json!({ "targetNamespace": "production" }),
        json!({ "targetStorageHint": "datastore1" }),
        json!({ "targetDiskFormat": "qcow2" }),
        json!({ "targetDiskFormat": "vmdk" }),
        json!({ "targetDiskFormat": "raw" }),
        json!({ "targetResourceHints": { "cpu": 4, "memory": 8192, "disk": 100 } }),
        json!({ "targetNetworkHints": [{ "name": "eth0", "network": "VM Network" }] }),
        json!({ "targetNetworkHints": [{ "name": "eth0", "bridge": "virbr0" }] }),
        json!({ "storage": {
            "type": "s3", "bucket": "vm-migrations", "region": "us-east-1", "endpoint": "s3.amazonaws.com",
            "credentialsSecretRef": { "name": "s3-credentials", "namespace": "default" },
        } }),
        json!({ "storage": {
            "type": "http", "endpoint": "https://storage.example.com/exports",
            "credentialsSecretRef": { "name": "http-credentials", "namespace": "default" },
        } }),
        json!({ "storage": { "type": "nfs", "path": "/mnt/vm-migrations", "endpoint": "nfs.example.com" } }),
        json!({ "cleanupPolicy": { "deleteIntermediate": true, "deleteSnapshot": true, "deleteSource": false } }),
        json!({ "retryPolicy": { "maxAttempts": 3, "backoffDuration": "5m", "maxBackoffDuration": "30m" } }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut migration = minimal(&format!("m{index}"));
        for (name, value) in fragment.as_object().unwrap() {
            migration["spec"][name] = value.clone();
        }
        let applied = cluster
            .apply(&migration)
            .unwrap_or_else(|error| panic!("{fragment}: {error}"));
        assert_contains(&applied["spec"], &fragment);
    }
}

#[test]
fn every_phase_and_every_field_of_the_status_is_kept() {
    let cluster = cluster();
    cluster.apply(&minimal("m")).unwrap();
    let schema = vmferry_api::crd::of("VMMigration").unwrap().schema();
    let phases = schema["properties"]["status"]["properties"]["phase"]["enum"].clone();
    assert_eq!(
        phases,
        json!([
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
            "Failed"
        ])
    );
    for phase in phases.as_array().unwrap() {
        let object = json!({
            "apiVersion": API, "kind": "VMMigration", "metadata": { "name": "m", "namespace": "default" },
            "status": {
                "phase": phase, "progress": 45, "startTime": "2025-10-16T10:00:00Z", "completionTime": "2025-10-16T10:30:00Z",
                "snapshotId": "snap-abc123", "exportTaskRef": "task-export-12345", "importTaskRef": "task-import-67890",
                "intermediateStorageURL": "s3://vm-migrations/export-abc123.vmdk", "checksum": "sha256:abcdef1234567890",
                "bytesTransferred": 10_737_418_240_i64, "retryAttempts": 1, "lastRetryTime": "2025-10-16T10:15:00Z",
                "conditions": [{
                    "type": "Validated", "status": "True", "reason": "SourceAndTargetValid",
                    "message": "Source VM and target provider validated", "lastTransitionTime": "2025-10-16T10:00:05Z",
                }],
            },
        });
        assert_contains(&status_of(&cluster, &object)["status"], &object["status"]);
    }
}

#[test]
fn the_secrets_of_the_reference_are_ordinary_secrets() {
    let cluster = cluster();
    for (name, data) in [
        (
            "s3-credentials",
            json!({ "accessKey": "AKIAIOSFODNN7EXAMPLE", "secretKey": "wJalr", "region": "us-east-1", "endpoint": "https://s3.amazonaws.com" }),
        ),
        ("http-credentials", json!({ "token": "Bearer_your-api-token-here" })),
        ("http-login", json!({ "username": "admin", "password": "secret123" })),
        ("nfs-config", json!({ "mountOptions": "vers=4,rw,sync" })),
    ] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "default" }, "type": "Opaque",
            "stringData": data,
        });
        cluster.apply(&secret).unwrap();
    }
}
