//! Two replicas of the controller, of which one leads, and a migration in mid-transfer when that one is killed or stands still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmferry_testkit::{DiskSpec, Guest, GuestSpec, MIB, wait_for};

use crate::support::Lab;

/// How long anything may take to begin.
const LIMIT: Duration = Duration::from_mins(1);
/// Within which another leads.
const TAKEOVER: Duration = Duration::from_secs(15);
const LEASE: (&str, &str) = ("coordination.k8s.io/v1", "Lease");
const EVENT: (&str, &str) = ("events.k8s.io/v1", "Event");

/// What is told once of a crossing, and by whom.
const ONCE: [&str; 11] = [
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
];

fn leader(lab: &Lab) -> String {
    let lease = lab.ferry.cluster().get(LEASE, "vmferry-system", "vmferry-controller");
    let holder = lease.map(|lease| lease["spec"]["holderIdentity"].clone());
    holder.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Waits until a replica leads; gives how long that took.
#[track_caller]
fn await_leader(lab: &Lab, name: &str) -> Duration {
    let began = Instant::now();
    wait_for(format!("{name} to lead"), LIMIT, || (leader(lab) == name).then_some(()));
    began.elapsed()
}

fn board(lab: &Lab) -> Guest<'_> {
    lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(128 * MIB).noise(96 * MIB)))
}

/// Asserts that no step was told twice, and that each replica told what it did while it led.
#[track_caller]
fn assert_told_once(lab: &Lab) {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in lab.ferry.cluster().list(EVENT, "default") {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        assert!(event["series"].is_null(), "{event}");
        told.entry(text("reason")).or_default().push(text("reportingInstance"));
    }
    for reason in ONCE {
        let by = told.get(reason).map_or(0, Vec::len);
        assert!(by <= 1, "{reason} was told {by} times: {told:?}");
    }
    assert_eq!(told["TransferStarted"], ["replica-0"]);
    assert_eq!(told["MigrationCompleted"], ["replica-1"]);
    for trouble in ["RetryScheduled", "MigrationFailed"] {
        assert!(!told.contains_key(trouble), "{told:?}");
    }
}

/// Asserts that each phase that moves bytes had one worker, which worked on while nobody led.
#[track_caller]
fn assert_two_workers(lab: &Lab) {
    let workers = lab.ferry.workers();
    assert_eq!(workers.len(), 2, "one stages and one imports: {workers:?}");
}

#[test]
fn a_leader_that_is_killed_is_followed_within_fifteen_seconds_and_nothing_is_done_twice() {
    let lab = Lab::session();
    let source = board(&lab);
    let (before, run_id) = (lab.look(), source.run_id());
    let mut ran = lab.ferry.replica(0);
    await_leader(&lab, "replica-0");
    let second = lab.ferry.replica(1);
    // Slow enough to be caught in the middle.
    ran.apply(&lab.crossing("traveller").limit("8MiB").to_yaml());
    let moves = |record: &crate::support::Record| record.phase() == "Transferring" && !record.status("rate").is_empty();
    ran.await_record("m", "transferring", LIMIT, moves);

    ran.kill();
    let took = await_leader(&lab, "replica-1");
    assert!(took < TAKEOVER, "the takeover took {took:?}");
    drop(ran.goes_on_with(second));
    ran.end().ready();

    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(source.run_id(), run_id, "the source ran all the time");
    assert_told_once(&lab);
    assert_two_workers(&lab);
}

#[test]
fn a_leader_that_stood_still_finds_another_and_ends_without_a_further_step() {
    let lab = Lab::session();
    let source = board(&lab);
    let (before, run_id) = (lab.look(), source.run_id());
    let mut ran = lab.ferry.replica(0);
    await_leader(&lab, "replica-0");
    let second = lab.ferry.replica(1);
    ran.apply(&lab.crossing("traveller").limit("8MiB").to_yaml());
    ran.await_record("m", "importing", LIMIT, |record| record.phase() == "Importing");

    ran.signal_controller("STOP");
    let took = await_leader(&lab, "replica-1");
    assert!(took < TAKEOVER, "the takeover took {took:?}");
    // It believes that it leads, for as long as it has not looked at its clock.
    ran.signal_controller("CONT");
    let mut first = ran.goes_on_with(second);
    let status = first.end();
    assert!(!status.success(), "{status}: {}", first.text());
    assert!(first.text().contains("lease"), "{}", first.text());
    ran.end().ready();

    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(source.run_id(), run_id, "the source ran all the time");
    assert_told_once(&lab);
    assert_two_workers(&lab);
}
