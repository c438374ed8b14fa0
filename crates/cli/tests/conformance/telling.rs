//! What a migration says of itself on its way: conditions, events, labels, columns; and the VirtualMachine that it leaves.

use std::time::Duration;

use serde_json::{Value, json};
use vmferry_testkit::{DiskSpec, GuestSpec, MIB, wait_for};

use super::cluster::{columns, declare, events};
use super::fields::assert_contains;
use super::support::{Crossing, Lab, Record};

const VM: (&str, &str) = ("infra.virtrigaud.io/v1beta1", "VirtualMachine");
const LIMIT: Duration = Duration::from_secs(90);

/// A guest with a disk that takes a moment to move.
pub fn guest() -> GuestSpec {
    GuestSpec::micro("traveller").disk(DiskSpec::qcow2(32 * MIB).noise(12 * MIB))
}

/// The reference's condition types.
pub const CONDITIONS: [&str; 10] = [
    "Validated",
    "Snapshotted",
    "Exported",
    "Transferring",
    "Transferred",
    "Converted",
    "Imported",
    "Created",
    "Ready",
    "Failed",
];

/// The reference's events: type, reason, and what the message begins with (a size is left out).
pub const EVENTS: [(&str, &str, &str); 15] = [
    ("Normal", "ValidationStarted", "Source VM validation started"),
    (
        "Normal",
        "ValidationSuccessful",
        "Source VM and target provider validated",
    ),
    ("Normal", "SnapshotCreated", "Snapshot "),
    ("Normal", "ExportStarted", "Disk export started"),
    ("Normal", "ExportCompleted", "Disk export completed ("),
    ("Normal", "TransferStarted", "Upload to storage started"),
    ("Normal", "TransferProgress", "Upload progress: "),
    ("Normal", "TransferCompleted", "Upload completed ("),
    ("Normal", "ImportStarted", "Download from storage started"),
    ("Normal", "ImportCompleted", "Download completed ("),
    ("Normal", "VMCreated", "Target VM created successfully"),
    ("Normal", "MigrationCompleted", "Migration completed successfully"),
    ("Warning", "RetryScheduled", "Migration failed, retry scheduled in 1s"),
    ("Warning", "MaxRetriesExceeded", "Maximum retry attempts (1) exceeded"),
    ("Error", "MigrationFailed", "Migration failed: "),
];

/// Holds the events of a migration to those of the reference with these reasons.
#[track_caller]
fn assert_told(lab: &Lab, name: &str, reasons: &[&str]) {
    let told = events(lab, name);
    for (kind, reason, message) in EVENTS.iter().filter(|(_, reason, _)| reasons.contains(reason)) {
        let matches = |event: &&Value| event["reason"] == *reason && event["type"] == *kind;
        let found = told
            .iter()
            .find(matches)
            .unwrap_or_else(|| panic!("no {kind} {reason} in {told:#?}"));
        let note = found["note"].as_str().unwrap();
        assert!(note.starts_with(message), "{reason}: {note}");
    }
    let known: Vec<_> = EVENTS.iter().map(|(_, reason, _)| json!(reason)).collect();
    for event in &told {
        assert!(known.contains(&event["reason"]), "not of the reference: {event}");
        assert_eq!(
            (&event["regarding"]["kind"], &event["regarding"]["name"]),
            (&json!("VMMigration"), &json!(name))
        );
    }
}

/// The condition `Transferring` while bytes move, as in the reference: `Uploading disk (45% complete, 4.5GB/10GB, ETA: 15m)`.
fn is_uploading(record: &Record) -> bool {
    let Some(condition) = record.condition("Transferring") else {
        return false;
    };
    let message = condition["message"].as_str().unwrap_or_default();
    condition["status"] == "True"
        && condition["reason"] == "UploadInProgress"
        && message.starts_with("Uploading disk (")
        && message.contains("% complete, ")
        && message.contains("MB/")
        && message.contains(", ETA: ")
}

/// The labels of a migration that its user gave.
fn labels() -> Value {
    json!({ "app": "mysql", "env": "production", "migration.virtrigaud.io/type": "upgrade" })
}

/// The labels that say from what to what.
fn types() -> Value {
    json!({
        "migration.virtrigaud.io/source-provider": "libvirt", "migration.virtrigaud.io/target-provider": "libvirt",
    })
}

/// The annotations that are the reference's.
const ANNOTATIONS: [(&str, &str); 3] = [
    ("migration.virtrigaud.io/requestor", "user@example.com"),
    ("migration.virtrigaud.io/reason", "Infrastructure upgrade"),
    ("migration.virtrigaud.io/ticket", "TICKET-12345"),
];

/// Declares a crossing into another namespace, with the reference's labels and annotations.
fn declare_labelled(lab: &Lab) -> Crossing {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "production" } });
    lab.ferry.cluster().apply(&namespace).unwrap();
    let mut crossing = lab
        .crossing("traveller")
        .limit("10MiB")
        .set("targetNamespace", json!("production"));
    for (name, value) in ANNOTATIONS {
        crossing.annotations[name] = json!(value);
    }
    declare(lab, &crossing).unwrap();
    let mut labelled = lab.ferry.record("m").0;
    for server in ["managedFields", "resourceVersion"] {
        labelled["metadata"].as_object_mut().unwrap().remove(server);
    }
    labelled["metadata"]["labels"] = labels();
    lab.ferry.cluster().apply(&labelled).unwrap();
    crossing
}

#[test]
fn a_crossing_says_what_the_reference_says() {
    let lab = Lab::session();
    // Of several parts: what counts as uploaded is what the store has as a whole.
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(128 * MIB).noise(96 * MIB)));
    let before = lab.look();
    let crossing = declare_labelled(&lab);
    let mut run = lab.ferry.start(&crossing);
    assert_under_way(&lab, &run.await_record("m", "uploading", LIMIT, is_uploading));
    run.end().ready();

    let milestones = EVENTS.iter().map(|(_, reason, _)| *reason).take(12);
    assert_told(&lab, "m", &milestones.collect::<Vec<_>>());
    let record = lab.ferry.record("m");
    assert_conditions(&record);
    assert_status(&record);
    assert_declared(&lab, &record);
    lab.assert_only_arrived(&before).assert_booted(&source);
}

/// Finalizer, progress, rate, and what `kubectl get` prints, while bytes move.
#[track_caller]
fn assert_under_way(lab: &Lab, record: &Record) {
    assert_eq!(
        record.0["metadata"]["finalizers"],
        json!(["vmmigration.infra.virtrigaud.io/cleanup"])
    );
    let progress = record.0["status"]["progress"].as_u64().unwrap();
    assert!((5..50).contains(&progress), "{progress}");
    assert!(record.status("rate").ends_with("/s"), "{:?}", record.status("rate"));
    let columns = columns(lab, "m");
    let names = |wide: bool| -> Vec<_> {
        let shown = columns.iter().filter(|column| column.1 == wide);
        shown.map(|(name, _, _)| name.as_str()).collect()
    };
    assert_eq!(
        names(false),
        ["Name", "Phase", "Progress", "Source", "Target", "Rate", "Age"]
    );
    assert_eq!(names(true), ["From", "To", "Checksum", "Message"]);
    let cell = |name: &str| columns.iter().find(|column| column.0 == name).unwrap().2.clone();
    assert_eq!((cell("From"), cell("To")), (json!("libvirt"), json!("libvirt")));
    assert!(cell("Rate").as_str().unwrap().ends_with("/s"), "{columns:?}");
}

/// The conditions of a migration that is Ready.
#[track_caller]
fn assert_conditions(record: &Record) {
    for condition in CONDITIONS
        .iter()
        .filter(|name| !["Transferring", "Failed"].contains(name))
    {
        assert!(
            record.holds(condition),
            "{condition}: {:?}",
            record.condition(condition)
        );
    }
    let of = |name: &str, field: &str| record.condition(name).unwrap()[field].as_str().unwrap().to_owned();
    for (name, reason, message) in [
        (
            "Validated",
            "ValidationSuccessful",
            "Source VM and target provider validated".to_owned(),
        ),
        (
            "Snapshotted",
            "SnapshotCreated",
            format!("Snapshot {} created", record.status("snapshotId")),
        ),
        ("Exported", "ExportSuccessful", "Disk exported from source (".to_owned()),
    ] {
        assert_eq!(of(name, "reason"), reason);
        assert!(of(name, "message").starts_with(&message), "{}", of(name, "message"));
    }
}

/// The fields of the status of a migration that is Ready.
#[track_caller]
fn assert_status(record: &Record) {
    for field in [
        "startTime",
        "completionTime",
        "snapshotId",
        "exportTaskRef",
        "importTaskRef",
        "bytesTransferred",
        "message",
        "observedGeneration",
        "targetVMID",
        "sourceVMID",
        "sourcePowerState",
    ] {
        assert!(!record.status(field).is_empty(), "{field}: {}", record.0["status"]);
    }
    assert_eq!(
        (record.phase().as_str(), record.status("progress").as_str()),
        ("Ready", "100")
    );
    let checksum = record.status("checksum");
    assert!(
        checksum.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64),
        "{checksum}"
    );
    let url = record.status("intermediateStorageURL");
    assert!(url.starts_with("nfs://") && url.contains("/default/m-"), "{url}");
    assert_contains(&record.0["metadata"]["labels"], &labels());
    assert_contains(&record.0["metadata"]["labels"], &types());
}

/// The VirtualMachine that stands for what arrived.
#[track_caller]
fn assert_declared(lab: &Lab, record: &Record) {
    let vm = lab.ferry.cluster().get(VM, "production", "arrived").unwrap();
    assert_eq!(
        vm["spec"]["importedDisk"]["migrationRef"],
        json!({ "name": "m", "namespace": "default" })
    );
    assert_contains(&vm["metadata"]["labels"], &types());
    assert_eq!(vm["metadata"]["labels"]["migration.virtrigaud.io/type"], "upgrade");
    assert_eq!(
        vm["metadata"]["labels"]["app"],
        Value::Null,
        "not for another's selectors"
    );
    for (name, value) in ANNOTATIONS {
        assert_eq!(vm["metadata"]["annotations"][name], value);
    }
    assert_eq!(
        record.0["status"]["targetVMRef"],
        json!({ "name": "arrived", "namespace": "production" })
    );
}

#[test]
fn a_failure_says_what_the_reference_says() {
    let lab = Lab::session();
    let policy = json!({ "maxAttempts": 1, "backoffDuration": "1s", "maxBackoffDuration": "2s" });
    let crossing = lab
        .crossing("traveller")
        .set("retryPolicy", policy)
        .endpoint("a", "qemu+unix:///session?socket=/nonexistent");
    let ended = lab.ferry.run(&crossing);
    assert_eq!(ended.code, 1, "{}", ended.text);
    let record = lab.ferry.record("m");
    assert_eq!(
        (record.phase().as_str(), record.status("retryAttempts").as_str()),
        ("Failed", "1")
    );
    assert!(!record.status("lastRetryTime").is_empty() && !record.status("completionTime").is_empty());
    let failed = record.condition("Failed").unwrap();
    assert_eq!(
        (failed["status"].as_str(), failed["reason"].as_str()),
        (Some("True"), Some("MigrationFailed"))
    );
    let all = || {
        let told = events(&lab, "m");
        told.iter()
            .any(|event| event["reason"] == "MigrationFailed")
            .then_some(())
    };
    wait_for("the last event", LIMIT, all);
    assert_told(&lab, "m", &["RetryScheduled", "MaxRetriesExceeded", "MigrationFailed"]);
}

#[test]
fn a_virtual_machine_that_is_declared_already_is_not_overwritten() {
    let lab = Lab::session();
    let source = lab.board(&guest());
    let declared = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VirtualMachine",
        "metadata": { "name": "arrived", "namespace": "default", "annotations": { "mine": "yes" } },
        "spec": { "providerRef": { "name": "b" }, "networks": [{ "name": "mine" }] },
    });
    lab.ferry.cluster().apply(&declared).unwrap();
    lab.ferry.run(&lab.crossing("traveller")).ready();
    let vm = lab.ferry.cluster().get(VM, "default", "arrived").unwrap();
    assert_eq!(vm["spec"], declared["spec"]);
    assert_eq!(vm["metadata"]["annotations"], declared["metadata"]["annotations"]);
    assert_eq!(lab.ferry.record("m").0["status"]["targetVMRef"]["name"], "arrived");
    drop(source);
}
