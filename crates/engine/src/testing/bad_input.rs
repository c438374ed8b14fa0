//! Bad input: each kind is named, with its field, and nothing is made.

use serde_json::json;
use vmferry_api::names::condition;
use vmferry_api::{DiskFormat, Key, Phase, ResourceHints, VMMigration};

use super::manifests::{self, NS, hints, limit};
use super::scenarios::condition_of;
use super::world::{State, World};
use super::{Drive, End};
use crate::port::EventType;

/// What is wrong, and what the failure must say.
type Wrong = (&'static str, fn(&mut State, &mut VMMigration), &'static [&'static str]);

const WRONGS: &[Wrong] = &[
    (
        "SourceNotFound",
        |state, _| state.vms.clear(),
        &["VirtualMachine lab/web", "spec.sourceName", "spec.sourceNamespace"],
    ),
    ("SourceNotFound", |state, _| state.source = None, &["web"]),
    (
        "ProviderNotFound",
        |state, _| drop(state.providers.remove(&Key::new(NS, "a"))),
        &["Provider lab/a", "providerRef"],
    ),
    (
        "ProviderNotFound",
        |state, _| drop(state.providers.remove(&Key::new(NS, "b"))),
        &["Provider lab/b", "spec.targetProviderRef"],
    ),
    (
        "SecretNotFound",
        |state, _| state.secrets.clear(),
        &["Secret lab/login", "spec.credentialSecretRef of Provider lab/a"],
    ),
    (
        "SecretNotFound",
        |_, migration| {
            migration.spec.storage.credentials_secret_ref = serde_json::from_value(json!({"name": "s3"})).unwrap();
        },
        &["Secret lab/s3", "spec.storage.credentialsSecretRef"],
    ),
    (
        "StorageInvalid",
        |_, migration| migration.spec.storage.path = None,
        &["spec.storage.path"],
    ),
    (
        "InvalidValue",
        |_, migration| limit(migration, "50 Mbit"),
        &["migration.virtrigaud.io/bandwidth-limit", "50 Mbit", "50MiB"],
    ),
    (
        "StorageNotFound",
        |_, migration| migration.spec.target_storage_hint = Some("fast".into()),
        &["pool"],
    ),
    (
        "NetworkNotFound",
        |_, migration| migration.spec.target_network_hints = hints(&[("eth0", "nowhere")]),
        &["nowhere"],
    ),
    (
        "InvalidHint",
        |_, migration| migration.spec.target_network_hints = hints(&[("eth9", "lan")]),
        &["spec.targetNetworkHints[0]", "eth9"],
    ),
    (
        "InvalidHint",
        |_, migration| {
            migration.spec.target_resource_hints = Some(ResourceHints {
                disk: Some(2),
                ..ResourceHints::default()
            });
        },
        &["spec.targetResourceHints.disk", "2 GB", "at least 3"],
    ),
    (
        "UnsupportedFormat",
        |_, migration| migration.spec.target_disk_format = Some(DiskFormat::Vmdk),
        &["spec.targetDiskFormat", "vmdk", "qcow2, raw"],
    ),
    (
        "TargetNameTaken",
        |_, migration| migration.spec.target_name = "web-copy2".into(),
        &["web-copy2"],
    ),
    (
        "UnsupportedSource",
        |state, _| state.source.as_mut().unwrap().0.disks.clear(),
        &["no disk"],
    ),
];

#[test]
fn bad_input_is_named_and_nothing_is_made() {
    for (reason, wrong, parts) in WRONGS {
        let mut drive = Drive::new(World::new(2));
        let mut migration = manifests::migration("m", 1);
        wrong(&mut drive.world.state(), &mut migration);
        let key = drive.add(|each| *each = migration);
        drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
        let status = drive.status(&key);
        assert_eq!(status.phase, Phase::Failed, "{reason}");
        let text = condition_of(&status, condition::VALIDATED);
        assert!(text.starts_with(&format!("False {reason}: ")), "{reason}: {text}");
        for part in *parts {
            assert!(text.contains(part), "{reason}: {part}: {text}");
        }
        assert_eq!(status.retry_attempts, None, "{reason} is not retried");
        assert!(
            condition_of(&status, condition::FAILED).starts_with("True "),
            "{reason}"
        );
        let state = drive.world.state();
        let made = [
            "source.freeze",
            "target.create_volume",
            "target.create_vm",
            "executor.start",
            "source.release",
        ];
        assert!(
            !state.trace.iter().any(|call| made.contains(call)),
            "{reason}: {:?}",
            state.trace
        );
        let failed = state
            .events
            .iter()
            .find(|event| event.event_type == EventType::Error)
            .unwrap();
        assert_eq!(failed.reason, "MigrationFailed");
    }
}

#[test]
fn what_is_applied_a_little_later_is_waited_for() {
    let mut drive = Drive::new(World::new(2));
    let late = Key::new(NS, "b");
    let provider = drive.world.state().providers.remove(&late).unwrap();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| {
        let message = drive.status(&key).message.unwrap_or_default();
        message.starts_with("Waiting for 30 s at most: ") && message.contains("Provider lab/b")
    });
    assert_eq!(drive.phase(&key), Phase::Validating);
    drive.world.state().providers.insert(late, provider);
    assert_eq!(drive.run(&key), End::Ready);
}
