//! What is refused: by the API server where it can, and by the controller where it does not.

use std::time::Duration;

use serde_json::{Value, json};
use vmferry_testkit::wait_for;

use super::cluster::{declare, events, report_provider};
use super::fields::{cluster, minimal};
use super::support::{Crossing, Lab, Record};

/// How long a migration that is wrong may take to say so.
const LIMIT: Duration = Duration::from_mins(1);

fn with(name: &str, pointer: &str, value: Value) -> Value {
    let mut migration = minimal(name);
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    migration.pointer_mut(&format!("/spec{parent}")).unwrap()[field] = value;
    migration
}

#[test]
fn types_enums_ranges_and_forms_are_refused_by_the_api_server() {
    let cluster = cluster();
    for (index, (pointer, value, says)) in [
        ("/sourceName", json!(7), "spec.sourceName"),
        ("/sourceName", json!(""), "spec.sourceName"),
        ("/sourceNamespace", json!("n".repeat(64)), "spec.sourceNamespace"),
        ("/targetName", json!("n".repeat(64)), "spec.targetName"),
        ("/targetProviderRef", json!({}), "spec.targetProviderRef.name"),
        ("/targetDiskFormat", json!("vhd"), "spec.targetDiskFormat"),
        (
            "/targetResourceHints",
            json!({ "cpu": 0 }),
            "spec.targetResourceHints.cpu",
        ),
        (
            "/targetResourceHints",
            json!({ "memory": "8G" }),
            "spec.targetResourceHints.memory",
        ),
        (
            "/targetResourceHints",
            json!({ "disk": 0 }),
            "spec.targetResourceHints.disk",
        ),
        (
            "/targetNetworkHints",
            json!([{ "network": "x" }]),
            "spec.targetNetworkHints",
        ),
        ("/storage/type", json!("ftp"), "spec.storage.type"),
        ("/storage", json!({}), "spec.storage.type"),
        (
            "/cleanupPolicy",
            json!({ "deleteSource": "yes" }),
            "spec.cleanupPolicy.deleteSource",
        ),
        (
            "/retryPolicy",
            json!({ "maxAttempts": -1 }),
            "spec.retryPolicy.maxAttempts",
        ),
        (
            "/retryPolicy",
            json!({ "maxAttempts": 1001 }),
            "spec.retryPolicy.maxAttempts",
        ),
        (
            "/retryPolicy",
            json!({ "backoffDuration": "5 minutes" }),
            "spec.retryPolicy.backoffDuration",
        ),
        (
            "/retryPolicy",
            json!({ "backoffDuration": "-5m" }),
            "spec.retryPolicy.backoffDuration",
        ),
        (
            "/retryPolicy",
            json!({ "maxBackoffDuration": "1d" }),
            "spec.retryPolicy.maxBackoffDuration",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let refusal = cluster
            .apply(&with(&format!("m{index}"), pointer, value.clone()))
            .unwrap_err();
        assert!(refusal.contains(says), "{pointer} = {value}: {refusal}");
    }
    for field in [
        "sourceName",
        "sourceNamespace",
        "targetProviderRef",
        "targetName",
        "storage",
    ] {
        let mut migration = minimal("less");
        migration["spec"].as_object_mut().unwrap().remove(field);
        let refusal = cluster.apply(&migration).unwrap_err();
        assert!(refusal.contains(&format!("spec.{field}")), "{refusal}");
    }
}

/// Rules that are CEL. A server that knows CEL refuses the migration; one that does not lets it in, and it fails.
#[test]
fn what_a_server_without_cel_lets_in_the_controller_refuses() {
    let lab = Lab::session();
    let good = lab.crossing("nobody");
    let wrongs = [
        (
            "bucket",
            "storage",
            json!({ "type": "s3", "region": "r" }),
            "StorageInvalid",
            "spec.storage.bucket",
        ),
        (
            "region",
            "storage",
            json!({ "type": "s3", "bucket": "b" }),
            "StorageInvalid",
            "spec.storage.region",
        ),
        (
            "endpoint",
            "storage",
            json!({ "type": "http" }),
            "StorageInvalid",
            "spec.storage.endpoint",
        ),
        (
            "url",
            "storage",
            json!({ "type": "http", "endpoint": "ftp://h/x" }),
            "StorageInvalid",
            "https://",
        ),
        (
            "path",
            "storage",
            json!({ "type": "nfs" }),
            "StorageInvalid",
            "spec.storage.path",
        ),
        (
            "dots",
            "storage",
            json!({ "type": "nfs", "path": "/mnt/../etc" }),
            "StorageInvalid",
            "'..'",
        ),
        ("name", "targetName", json!("a/b"), "InvalidValue", "spec.targetName"),
        (
            "hint",
            "targetNetworkHints",
            json!([{ "name": "eth0", "network": "n", "bridge": "b" }]),
            "InvalidHint",
            "exactly one of network and bridge",
        ),
        (
            "twice",
            "targetNetworkHints",
            json!([{ "name": "eth0", "network": "n" }, { "name": "eth0", "bridge": "b" }]),
            "InvalidHint",
            "a name of its own",
        ),
        (
            "backoff",
            "retryPolicy",
            json!({ "backoffDuration": "31m", "maxBackoffDuration": "30m" }),
            "InvalidValue",
            "at least backoffDuration",
        ),
    ];
    let mut run = lab.ferry.start(&good);
    for (name, field, value, reason, says) in wrongs {
        let crossing = Crossing {
            name: name.to_owned(),
            ..good.clone()
        };
        let crossing = crossing.set(field, value);
        if let Err(refusal) = declare(&lab, &crossing) {
            assert!(refusal.contains(says), "{name}: {refusal}");
            continue;
        }
        let record = run.await_record(name, "refused", LIMIT, Record::is_over);
        assert_eq!(record.phase(), "Failed", "{name}");
        let condition = record.condition("Validated").unwrap();
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("False"), &json!(reason)),
            "{name}"
        );
        let message = condition["message"].as_str().unwrap();
        assert!(message.contains(says), "{name}: {message}");
    }
    // One bad object stops no other, and the good one has a VM that is not there.
    run.await_record("m", "over", LIMIT, Record::is_over);
    drop(run);
}

#[test]
fn a_migration_under_way_keeps_its_source_target_and_storage() {
    let lab = Lab::session();
    let source = lab.board(&super::telling::guest());
    let before = lab.look();
    let crossing = lab.crossing("traveller").limit("2MiB");
    let mut run = lab.ferry.start(&crossing);
    run.await_record("m", "on its way", LIMIT, |record| record.phase() == "Transferring");
    let changed = crossing.clone().set("targetName", json!("elsewhere")).limit("1GiB");
    if let Err(refusal) = declare(&lab, &changed) {
        // A server that knows CEL.
        assert!(refusal.contains("spec.targetName"), "{refusal}");
    } else {
        let told = || {
            let events = events(&lab, "m");
            events.into_iter().find(|event| event["reason"] == "SpecChangeIgnored")
        };
        let event = wait_for("the event", LIMIT, told);
        assert_eq!(event["type"], "Warning");
        assert!(event["note"].as_str().unwrap().contains("spec.targetName"), "{event}");
    }
    run.end().ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
}

#[test]
fn a_provider_that_is_not_available_is_not_used() {
    let lab = Lab::session();
    let source = lab.board(&super::telling::guest());
    let crossing = lab.crossing("traveller");
    declare(&lab, &crossing).unwrap();
    report_provider(
        &lab,
        "b",
        &json!({ "conditions": [{
            "type": "ProviderAvailable", "status": "False", "reason": "Unreachable", "message": "no route to host",
            "lastTransitionTime": "2025-10-16T10:00:00Z",
        }] }),
    );
    let mut run = lab.ferry.start(&crossing);
    let record = run.await_record("m", "held up", LIMIT, |record| {
        !record.status("retryAttempts").is_empty()
    });
    let condition = record.condition("Validated").unwrap();
    assert_eq!(condition["reason"], "ProviderNotReady", "{condition}");
    assert!(
        condition["message"]
            .as_str()
            .unwrap()
            .contains("no route to host (Unreachable)"),
        "{condition}"
    );
    report_provider(&lab, "b", &json!({ "healthy": true, "conditions": [] }));
    run.end().ready();
    drop(source);
}

#[test]
fn only_so_many_use_one_provider_and_the_others_say_why_they_wait() {
    let lab = Lab::session();
    let spec = super::telling::guest();
    let source = lab.board(&spec);
    let crossing = lab.crossing("traveller").limit("1MiB");
    let mut run = lab.ferry.start_with(&crossing, &["--max-per-provider=1"]);
    run.await_record("m", "on its way", LIMIT, |record| record.phase() == "Transferring");
    let second = lab.crossing_as("second", "traveller", "second");
    declare(&lab, &second).unwrap();
    let waits = "Waiting for a free slot at Provider default/a: at most 1 at once, taken by default/m";
    run.await_record("second", "waiting", LIMIT, |record| record.status("message") == waits);
    let third = lab.crossing_as("third", "traveller", "third");
    declare(&lab, &third).unwrap();
    let behind = "Waiting for a free slot at Provider default/a: at most 1 at once, behind default/second";
    let record = run.await_record("third", "waiting", LIMIT, |record| record.status("message") == behind);
    assert_eq!(record.phase(), "Pending");
    drop((run, source));
}
