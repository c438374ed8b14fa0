//! Annotations that ask for another try, or to give up.

use std::time::Duration;

use vmferry_api::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY, condition};
use vmferry_api::{Key, Phase};

use super::scenarios::{condition_of, drive};
use super::world::{Inject, World};
use super::{Drive, End};
use crate::engine::Next;
use crate::port::{EventType, FailureKind};

fn ask(drive: &Drive, key: &Key, name: &str, value: &str) {
    drive.world.state().annotate(key, name, value);
}

/// Drives a migration to a failure of its upload.
fn fail_upload(drive: &mut Drive, key: &Key, kind: FailureKind) -> Option<Next> {
    drive.until(key, |drive| !drive.world.state().jobs.is_empty());
    drive.world.state().jobs.values_mut().for_each(|job| job.fail(kind));
    drive.step(key)
}

#[test]
fn one_that_failed_starts_again_once_for_each_value() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    fail_upload(&mut drive, &key, FailureKind::Permanent);
    assert_eq!(drive.run(&key), End::Failed);
    assert_eq!(drive.step(&key), Some(Next::Done(Phase::Failed)), "nobody asked");
    ask(&drive, &key, ANNOTATION_RETRY, "monday");
    assert_eq!(drive.step(&key), Some(Next::Now));
    let status = drive.status(&key);
    assert_eq!((status.phase, status.progress), (Phase::Pending, 0));
    assert!(status.disks.is_empty() && status.retry_attempts.is_none());
    assert!(condition_of(&status, condition::FAILED).starts_with("False StartingOver"));
    assert_eq!(status.conditions.len(), 1);
    assert_eq!((status.completion_time, status.start_time), (None, None));
    assert!(status.last_retry_time.is_some());
    assert_eq!(status.last_handled_retry.as_deref(), Some("monday"));
    assert_eq!(drive.run(&key), End::Ready);
    let status = drive.status(&key);
    assert_eq!(
        status.export_task_ref.as_deref(),
        Some("export-00000001d9cb-1"),
        "no name is used twice"
    );
    assert_eq!(drive.step(&key), Some(Next::Done(Phase::Ready)), "the value has acted");
}

#[test]
fn a_second_round_survives_a_crash_or_failure_at_any_call() {
    let round = |mishap: Option<(u64, Inject)>| {
        let mut drive = Drive::new(World::new(2));
        let key = drive.add(|_| {});
        fail_upload(&mut drive, &key, FailureKind::Permanent);
        assert_eq!(drive.run(&key), End::Failed);
        let before = drive.world.state().calls;
        ask(&drive, &key, ANNOTATION_RETRY, "1");
        drive
            .world
            .state()
            .plan
            .extend(mishap.map(|(call, inject)| (before + call, inject)));
        let end = drive.run(&key);
        let calls = drive.world.state().calls - before;
        (end, calls)
    };
    let (end, calls) = round(None);
    assert_eq!(end, End::Ready);
    for call in 1..=calls {
        for after in [false, true] {
            let crash = Inject::Crash { after, jobs_too: true };
            let fail = Inject::Fail {
                permanent: false,
                after,
            };
            for inject in [crash, fail] {
                assert_eq!(round(Some((call, inject))).0, End::Ready, "{inject:?} at call {call}");
            }
        }
    }
}

#[test]
fn a_retry_that_waits_is_due_now() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    let next = fail_upload(&mut drive, &key, FailureKind::Retryable);
    assert_eq!(next, Some(Next::After(Duration::from_mins(5))));
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    drive.step(&key);
    let status = drive.status(&key);
    assert_eq!((status.next_retry_time, status.retry_attempts), (None, Some(1)));
    assert!(!drive.world.state().jobs.is_empty(), "it goes on");
    assert_eq!(drive.run(&key), End::Ready);
}

#[test]
fn a_retry_while_it_cleans_up_follows_the_clean_up() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    let vm = Key::new(super::manifests::NS, "web");
    fail_upload(&mut drive, &key, FailureKind::Permanent);
    let gone = drive.world.state().vms.remove(&vm).unwrap();
    assert!(matches!(drive.step(&key), Some(Next::After(_))), "it cannot be cleaned");
    drive.world.state().vms.insert(vm, gone);
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    assert_eq!(
        drive.step(&key),
        Some(Next::Now),
        "it does not wait for the clean-up's own retry"
    );
    assert_eq!(drive.phase(&key), Phase::Pending);
    assert_eq!(drive.run(&key), End::Ready);
}

#[test]
fn a_value_that_was_there_from_the_beginning_asks_for_nothing() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    fail_upload(&mut drive, &key, FailureKind::Permanent);
    assert_eq!(drive.run(&key), End::Failed);
    assert_eq!(drive.status(&key).last_handled_retry.as_deref(), Some("1"));
}

#[test]
fn a_cancelled_migration_is_undone_and_says_so() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Importing);
    ask(&drive, &key, ANNOTATION_CANCEL, "yes");
    assert_eq!(drive.step(&key), Some(Next::Now));
    assert_eq!(drive.phase(&key), Phase::Failed);
    assert_eq!(drive.run(&key), End::Failed);
    let status = drive.status(&key);
    let failed = condition_of(&status, condition::FAILED);
    assert!(
        failed.starts_with(
            "True Cancelled: Migration failed: cancelled, as the annotation migration.virtrigaud.io/cancel"
        ),
        "{failed}"
    );
    assert!(condition_of(&status, condition::IMPORTED).starts_with("False Cancelled"));
    let state = drive.world.state();
    let told = state.events.iter().filter(|event| event.reason == "MigrationFailed");
    assert_eq!(
        told.map(|event| event.event_type).collect::<Vec<_>>(),
        [EventType::Error]
    );
}

#[test]
fn a_cancellation_does_not_wait_for_a_retry_and_a_retry_may_follow_it() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    fail_upload(&mut drive, &key, FailureKind::Retryable);
    ask(&drive, &key, ANNOTATION_CANCEL, "1");
    assert_eq!(drive.step(&key), Some(Next::Now));
    assert_eq!(drive.run(&key), End::Failed);
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    assert_eq!(drive.run(&key), End::Ready, "the cancellation has acted");
}

#[test]
fn a_cancellation_takes_back_a_retry_that_has_not_begun() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    let vm = Key::new(super::manifests::NS, "web");
    fail_upload(&mut drive, &key, FailureKind::Permanent);
    let gone = drive.world.state().vms.remove(&vm).unwrap();
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    drive.step(&key);
    ask(&drive, &key, ANNOTATION_CANCEL, "1");
    drive.step(&key);
    drive.world.state().vms.insert(vm, gone);
    assert_eq!(drive.run(&key), End::Failed);
    assert!(condition_of(&drive.status(&key), condition::FAILED).starts_with("True Cancelled"));
}

#[test]
fn one_that_is_ready_stays_so() {
    let mut drive = drive();
    let key = drive.add(|_| {});
    drive.until(&key, |drive| drive.phase(&key) == Phase::Ready);
    ask(&drive, &key, ANNOTATION_CANCEL, "1");
    ask(&drive, &key, ANNOTATION_RETRY, "1");
    assert_eq!(drive.run(&key), End::Ready);
    ask(&drive, &key, ANNOTATION_CANCEL, "2");
    ask(&drive, &key, ANNOTATION_RETRY, "2");
    assert_eq!(drive.step(&key), Some(Next::Done(Phase::Ready)));
    let status = drive.status(&key);
    assert_eq!(status.last_handled_cancel.as_deref(), Some("2"), "later rounds know it");
}
