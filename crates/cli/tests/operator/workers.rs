//! `kill -9` of the process that moves the bytes, alone and with the controller: the next one goes on from what was noted.

use std::time::Duration;

use vmferry_testkit::{DiskSpec, GuestSpec, MIB};

use crate::support::Lab;

/// How long anything may take to begin.
const LIMIT: Duration = Duration::from_mins(1);

/// Kills the worker of a phase, and the controller with it where it is to.
#[track_caller]
fn goes_on_without_its_worker(phase: &str, nor_its_controller: bool) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(128 * MIB).noise(96 * MIB)));
    let (before, run_id) = (lab.look(), source.run_id());
    // Slow enough to be caught in the middle.
    let crossing = lab.crossing("traveller").limit("24MiB");
    let mut ran = lab.ferry.start(&crossing);
    ran.await_record("m", phase, LIMIT, |record| record.phase() == phase);
    let killed = lab.ferry.kill_worker(LIMIT);
    if nor_its_controller {
        ran.kill();
        lab.ferry.run(&crossing).ready();
    } else {
        ran.end().ready();
    }

    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(source.run_id(), run_id, "the source ran all the time");
    let workers = lab.ferry.workers();
    let same = |name: &&String| name.starts_with(&killed[..killed.len() - "-abcde".len()]);
    assert_eq!(
        workers.iter().filter(same).count(),
        2,
        "{killed} has one that follows it: {workers:?}"
    );
}

#[test]
fn a_worker_that_is_killed_while_it_stages_is_followed_by_another() {
    goes_on_without_its_worker("Transferring", false);
}

#[test]
fn a_worker_that_is_killed_while_it_imports_is_followed_by_another() {
    goes_on_without_its_worker("Importing", false);
}

#[test]
fn worker_and_controller_are_killed_while_they_stage() {
    goes_on_without_its_worker("Transferring", true);
}

#[test]
fn worker_and_controller_are_killed_while_they_import() {
    goes_on_without_its_worker("Importing", true);
}
