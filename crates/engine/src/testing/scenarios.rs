//! One behaviour a test.

use std::time::Duration;

use serde_json::json;
use vmferry_api::names::{FINALIZER, LABEL_SOURCE_PROVIDER, LABEL_TARGET_PROVIDER, condition};
use vmferry_api::{CleanupPolicy, GoDuration, Key, Phase, SourcePower, VMMigrationStatus};

use super::manifests::{self, NS};
use super::world::{Inject, World};
use super::{Drive, End};
use crate::engine::Next;
use crate::port::{EventType, FailureKind};

pub(super) fn drive() -> Drive {
    Drive::new(World::new(2))
}

/// The condition of this type as `status reason: message`.
pub(super) fn condition_of(status: &VMMigrationStatus, name: &str) -> String {
    let found = status.conditions.iter().find(|each| each.type_ == name);
    found.map_or_else(String::new, |each| {
        format!("{} {}: {}", each.status, each.reason, each.message)
    })
}

fn saves(drive: &Drive) -> usize {
    drive
        .world
        .state()
        .trace
        .iter()
        .filter(|name| **name == "store.save")
        .count()
}

#[test]
fn a_migration_tells_what_it_did() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    assert_eq!(drive.run(&key), End::Ready);
    let state = drive.world.state();
    let reasons: Vec<_> = state.events.iter().map(|event| event.reason.as_str()).collect();
    let milestones: Vec<_> = reasons
        .into_iter()
        .filter(|reason| *reason != "TransferProgress")
        .collect();
    assert_eq!(
        milestones,
        [
            "ValidationStarted",
            "ValidationSuccessful",
            "SnapshotCreated",
            "ExportStarted",
            "ExportCompleted",
            "TransferStarted",
            "TransferCompleted",
            "ImportStarted",
            "ImportCompleted",
            "VMCreated",
            "MigrationCompleted",
        ]
    );
    assert!(state.events.iter().all(|event| event.event_type == EventType::Normal));
    let migration = &state.migrations[&key];
    assert_eq!(migration.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    let labels = migration.metadata.labels.clone().unwrap();
    assert_eq!(
        (
            labels[LABEL_SOURCE_PROVIDER].as_str(),
            labels[LABEL_TARGET_PROVIDER].as_str()
        ),
        ("libvirt", "libvirt")
    );
    let status = migration.status.clone().unwrap();
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.snapshot_id.as_deref(), Some("frozen-0"));
    assert_eq!(status.export_task_ref.as_deref(), Some("export-00000001d9cb-0"));
    assert_eq!(status.import_task_ref.as_deref(), Some("import-00000001d9cb-0"));
    let url = "nfs:///staging/lab/m-00000001d9cb/vda.qcow2";
    assert_eq!(status.intermediate_storage_url.as_deref(), Some(url));
    assert!(status.checksum.unwrap().starts_with("sha256:"));
    assert_eq!(status.bytes_transferred, Some(6000));
    assert_eq!(status.source_power_state, Some(SourcePower::On));
    assert_eq!(status.target_vm_id.as_deref(), Some("uuid-of-web-copy"));
    assert_eq!(status.target_vm_ref.unwrap().name, "web-copy");
    assert_eq!(
        status.disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(),
        ["vda", "vdb"]
    );
    for disk in &status.disks {
        assert!(disk.content_digest.is_some() && disk.staged_bytes == Some(3000) && disk.target_volume.is_some());
    }
    drop(state);
    let status = drive.status(&key);
    assert!(condition_of(&status, condition::CONVERTED).starts_with("True ConvertedInFlight"));
    assert!(condition_of(&status, condition::VALIDATED).starts_with("True ValidationSuccessful"));
}

#[test]
fn what_the_store_is_worth_telling_is_told() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    assert_eq!(drive.run(&key), End::Ready);
    let notes = "; uploads are resumed part by part";
    let validated = condition_of(&drive.status(&key), condition::VALIDATED);
    assert!(validated.ends_with(&format!("validated{notes}")), "{validated}");
    let state = drive.world.state();
    let started = state
        .events
        .iter()
        .find(|event| event.reason == "TransferStarted")
        .unwrap();
    assert_eq!(started.message, format!("Upload to storage started{notes}"));
}

#[test]
fn a_limit_reaches_both_jobs() {
    for (annotation, limit) in [(None, None), (Some("1MiB"), std::num::NonZeroU64::new(1 << 20))] {
        let mut drive = drive();
        let key = drive.add(|migration| {
            if let Some(rate) = annotation {
                super::manifests::limit(migration, rate);
            }
        });
        let mut limits = std::collections::BTreeMap::new();
        drive.until(&key, |drive| {
            let state = drive.world.state();
            limits.extend(
                state
                    .jobs
                    .values()
                    .map(|job| (job.job.id.0.clone(), job.job.bandwidth_limit)),
            );
            drop(state);
            drive.phase(&key) == Phase::Creating
        });
        assert_eq!(limits.into_values().collect::<Vec<_>>(), [limit, limit]);
    }
}

#[test]
fn progress_is_reported_and_written_at_most_every_few_seconds() {
    let mut drive = drive();
    drive.config.progress_interval = Duration::from_hours(1);
    drive.restart();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| {
        drive.world.state().uploads.contains_key("lab/m-00000001d9cb/vda.qcow2")
    });
    drive.world.state().paused = true;
    drive.until(&key, |drive| {
        condition_of(&drive.status(&key), condition::TRANSFERRING).contains("Uploading disk vda (")
    });
    let status = drive.status(&key);
    assert!((5..50).contains(&status.progress), "{}", status.progress);
    assert!(status.message.unwrap().contains("% complete, "));
    assert_eq!(
        (status.disks[0].bytes_per_second, status.disks[0].staged_bytes),
        (Some(1000), Some(3000))
    );
    let before = saves(&drive);
    for _ in 0..3 {
        assert!(matches!(drive.step(&key), Some(Next::After(_))));
    }
    assert_eq!(saves(&drive), before, "progress is not written again so soon");
}

#[test]
fn of_two_migrations_of_one_vm_the_older_goes_on() {
    let mut drive = drive();
    let older = drive.add(|_| {});
    let younger = drive.add_as("a-younger", 2, |migration| migration.spec.target_name = "other".into());
    drive.step(&older);
    drive.wait(Duration::from_secs(1));
    drive.until(&younger, |drive| drive.status(&younger).completion_time.is_some());
    let text = condition_of(&drive.status(&younger), condition::VALIDATED);
    assert!(
        text.starts_with("False ConflictingMigration: ") && text.contains("lab/m"),
        "{text}"
    );
    assert_eq!(drive.run(&older), End::Ready);
}

#[test]
fn two_names_of_one_vm_are_one_vm() {
    let mut drive = drive();
    let older = drive.add(|_| {});
    drive.step(&older);
    drive.wait(Duration::from_secs(1));
    let mut alias = manifests::vm("alias", "a");
    alias.status = serde_json::from_value(json!({"id": "web"})).unwrap();
    drive.world.state().vms.insert(Key::new(NS, "alias"), alias);
    let younger = drive.add_as("n", 2, |migration| migration.spec.source_name = "alias".into());
    drive.until(&younger, |drive| drive.status(&younger).completion_time.is_some());
    assert!(condition_of(&drive.status(&younger), condition::VALIDATED).contains("ConflictingMigration"));
}

#[test]
fn of_two_migrations_to_one_name_the_older_goes_on() {
    let mut drive = drive();
    let older = drive.add(|_| {});
    drive.step(&older);
    drive.wait(Duration::from_secs(1));
    drive
        .world
        .state()
        .vms
        .insert(Key::new(NS, "db"), manifests::vm("db", "a"));
    let younger = drive.add_as("n", 2, |migration| migration.spec.source_name = "db".into());
    drive.until(&younger, |drive| drive.status(&younger).completion_time.is_some());
    let text = condition_of(&drive.status(&younger), condition::VALIDATED);
    assert!(
        text.starts_with("False TargetNameTaken: ") && text.contains("spec.targetName"),
        "{text}"
    );
    assert_eq!(drive.run(&older), End::Ready);
}

#[test]
fn an_executor_that_cannot_be_asked_costs_no_attempt() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| !drive.world.state().jobs.is_empty());
    for _ in 0..5 {
        let mut state = drive.world.state();
        let observe = state.calls + 2;
        state.plan.insert(
            observe,
            Inject::Fail {
                permanent: false,
                after: false,
            },
        );
        drop(state);
        assert!(matches!(drive.step(&key), Some(Next::After(_))));
        assert_eq!(
            drive.world.state().trace[usize::try_from(observe).unwrap() - 1],
            "executor.observe"
        );
        assert!(
            drive
                .status(&key)
                .message
                .unwrap()
                .starts_with("cannot observe the job export-")
        );
    }
    assert_eq!(drive.status(&key).retry_attempts, None);
    assert_eq!(drive.run(&key), End::Ready);
}

#[test]
fn a_conflict_with_one_that_is_being_cleaned_up_passes() {
    let mut drive = drive();
    let older = drive.add(|_| {});
    drive.until(&older, |drive| drive.phase(&older) == Phase::Transferring);
    drive.wait(Duration::from_secs(1));
    drive.world.state().delete(&older);
    let younger = drive.add_as("n", 2, |_| {});
    drive.until(&younger, |drive| drive.status(&younger).retry_attempts == Some(1));
    drive.until(&older, |drive| !drive.world.state().migrations.contains_key(&older));
    assert_eq!(drive.run(&younger), End::Ready);
}

#[test]
fn only_so_many_run_at_once_and_the_oldest_goes_first() {
    let mut drive = drive();
    drive.config.max_concurrent = 1;
    drive.restart();
    let first = drive.add(|_| {});
    let second = drive.add_as("b", 2, |_| {});
    drive.step(&first);
    drive.wait(Duration::from_secs(1));
    drive.step(&second);
    for _ in 0..3 {
        assert!(matches!(drive.step(&second), Some(Next::After(_))));
    }
    let status = drive.status(&second);
    assert_eq!(status.phase, Phase::Pending);
    assert!(status.message.unwrap().contains("at most 1 "));
    let before = saves(&drive);
    drive.step(&second);
    assert_eq!(saves(&drive), before, "waiting writes nothing");
    drive.until(&first, |drive| drive.status(&first).completion_time.is_some());
    assert_eq!(drive.phase(&first), Phase::Ready);
    drive.step(&second);
    assert_eq!(drive.phase(&second), Phase::Validating);
}

#[test]
fn retries_back_off_and_end() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    let mut waits = Vec::new();
    for attempt in 1..=3 {
        drive.until(&key, |drive| {
            drive.world.state().trace.last() == Some(&"executor.start") || !drive.world.state().jobs.is_empty()
        });
        drive
            .world
            .state()
            .jobs
            .values_mut()
            .for_each(|job| job.fail(FailureKind::Retryable));
        let Some(Next::After(wait)) = drive.step(&key) else {
            panic!("no wait")
        };
        let status = drive.status(&key);
        assert_eq!(
            (status.retry_attempts, status.phase),
            (Some(attempt), Phase::Transferring)
        );
        assert_eq!(
            status.export_task_ref.as_deref(),
            Some(format!("export-00000001d9cb-{attempt}").as_str())
        );
        assert!(condition_of(&status, condition::TRANSFERRED).starts_with("False TransferFailed: cannot move"));
        assert!(
            matches!(drive.step(&key), Some(Next::After(again)) if again == wait),
            "it waits"
        );
        waits.push(wait.as_secs() / 60);
        drive.wait(wait);
    }
    assert_eq!(waits, [5, 10, 20]);
    drive.until(&key, |drive| !drive.world.state().jobs.is_empty());
    drive
        .world
        .state()
        .jobs
        .values_mut()
        .for_each(|job| job.fail(FailureKind::Retryable));
    assert_eq!(drive.run(&key), End::Failed);
    let status = drive.status(&key);
    assert!(
        condition_of(&status, condition::FAILED).starts_with("True MigrationFailed: Migration failed: cannot move")
    );
    assert!(status.completion_time.is_some() && status.next_retry_time.is_none());
    let state = drive.world.state();
    let told = |reason: &str| state.events.iter().filter(|event| event.reason == reason).count();
    assert_eq!(
        (
            told("RetryScheduled"),
            told("MaxRetriesExceeded"),
            told("MigrationFailed")
        ),
        (3, 1, 1)
    );
    let retry = state
        .events
        .iter()
        .find(|event| event.reason == "RetryScheduled")
        .unwrap();
    assert!(
        retry.message.starts_with("Migration failed, retry scheduled in 5m: "),
        "{}",
        retry.message
    );
    assert_eq!(retry.event_type, EventType::Warning);
}

#[test]
fn a_backoff_of_nothing_retries_at_once() {
    let mut drive = drive();
    let key = drive.add(|migration| migration.spec.retry_policy.backoff_duration = GoDuration(Duration::ZERO));
    drive.until(&key, |drive| !drive.world.state().jobs.is_empty());
    drive
        .world
        .state()
        .jobs
        .values_mut()
        .for_each(|job| job.fail(FailureKind::Retryable));
    assert_eq!(drive.step(&key), Some(Next::Now));
    assert_eq!(drive.run(&key), End::Ready);
}

#[test]
fn a_frozen_state_that_is_gone_is_frozen_and_exported_anew() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| {
        drive
            .world
            .state()
            .uploads
            .keys()
            .any(|key| key.contains("00000001d9cb"))
    });
    drive
        .world
        .state()
        .frozen
        .iter_mut()
        .for_each(|frozen| frozen.holds = frozen.kept);
    drive.until(&key, |drive| drive.phase(&key) == Phase::Snapshotting);
    let status = drive.status(&key);
    assert_eq!((status.retry_attempts, status.snapshot_id.as_deref()), (Some(1), None));
    assert!(condition_of(&status, condition::SNAPSHOTTED).starts_with("False FrozenStateGone"));
    assert_eq!(drive.run(&key), End::Ready);
    assert_eq!(drive.status(&key).snapshot_id.as_deref(), Some("frozen-1"));
}

#[test]
fn a_rotten_object_is_exported_again_from_the_same_frozen_state() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Importing);
    let mut state = drive.world.state();
    let next = state.calls + 1;
    state.plan.insert(next, Inject::Corrupt);
    drop(state);
    drive.until(&key, |drive| drive.phase(&key) == Phase::Exporting);
    assert!(condition_of(&drive.status(&key), condition::IMPORTED).starts_with("False StagedCorrupt"));
    assert_eq!(drive.run(&key), End::Ready);
    assert_eq!(drive.status(&key).snapshot_id.as_deref(), Some("frozen-0"));
}

#[test]
fn a_disk_that_grew_before_it_is_frozen_anew_gets_a_volume_of_its_size() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.status(&key).import_task_ref.is_some());
    {
        let mut state = drive.world.state();
        let next = state.calls + 1;
        state.plan.insert(next, Inject::Corrupt);
        state.frozen.iter_mut().for_each(|frozen| frozen.holds = frozen.kept);
        state.source.as_mut().unwrap().0.disks[0].capacity = 4 << 30;
    }
    assert_eq!(drive.run(&key), End::Ready);
    let sizes: Vec<_> = drive
        .status(&key)
        .disks
        .iter()
        .map(|disk| disk.capacity_bytes)
        .collect();
    assert_eq!(sizes, [Some(4 << 30), Some(3 << 30)]);
}

#[test]
fn deletion_does_not_wait_for_a_retry_and_keeps_the_finalizer_while_something_is_left() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| !drive.world.state().jobs.is_empty());
    drive
        .world
        .state()
        .jobs
        .values_mut()
        .for_each(|job| job.fail(FailureKind::Retryable));
    assert!(matches!(drive.step(&key), Some(Next::After(wait)) if wait.as_secs() == 300));
    drive.wait(Duration::from_secs(10));
    let vm = drive.world.state().vms.remove(&Key::new(NS, "web")).unwrap();
    drive.world.state().delete(&key);
    let Some(Next::After(wait)) = drive.step(&key) else {
        panic!("it cannot be clean")
    };
    assert!(wait.as_secs() <= 10, "{wait:?}");
    let migration = drive.world.state().migrations[&key].clone();
    assert_eq!(migration.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    let message = migration.status.unwrap().message.unwrap();
    for part in ["snapshot frozen-0", "VirtualMachine lab/web", "apply it"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let owner = super::check::owner(1);
    let left = drive.world.state().ours(&owner);
    assert_eq!(left, ["frozen frozen-0"], "what can be cleaned is cleaned all the same");
    drive.world.state().vms.insert(Key::new(NS, "web"), vm);
    assert_eq!(drive.run(&key), End::Gone);
}

#[test]
fn a_migration_that_made_nothing_goes_without_its_world() {
    let mut drive = drive();
    drive.world.state().vms.clear();
    drive.world.state().providers.clear();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.status(&key).completion_time.is_some());
    drive.world.state().delete(&key);
    assert_eq!(drive.step(&key), Some(Next::Gone));
    assert!(drive.world.state().migrations.is_empty());
}

#[test]
fn deletion_after_the_end_leaves_the_target_and_during_it_leaves_the_source_too() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    assert_eq!(drive.run(&key), End::Ready);
    drive.world.state().delete(&key);
    assert_eq!(drive.run(&key), End::Gone);
    assert!(drive.world.state().target_vms.contains_key("web-copy"));

    let mut drive = Drive::new(World::new(1));
    let key = drive.add(|migration| {
        migration.spec.cleanup_policy = CleanupPolicy {
            delete_source: true,
            ..CleanupPolicy::default()
        };
    });
    drive.until(&key, |drive| drive.phase(&key) == Phase::Ready);
    drive.world.state().delete(&key);
    assert_eq!(drive.run(&key), End::Gone);
    let state = drive.world.state();
    assert!(state.source.is_some() && state.target_vms.contains_key("web-copy"));
}
