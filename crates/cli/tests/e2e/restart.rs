//! `kill -9` in every phase, then the same command: it goes on and ends Ready, and the source ran all the time.

use vmferry_testkit::{DiskSpec, GuestSpec, MIB};

use crate::support::Lab;

/// How many crossings are tried until one is caught in a phase that lasts a millisecond. Only the catching is tried again, never
/// what is asserted about it.
const TRIES: u32 = 25;

#[track_caller]
fn goes_on_after_a_kill_in(phase: &str) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(32 * MIB)));
    let run_id = source.run_id();
    for attempt in 0..TRIES {
        let before = lab.look();
        let (name, target) = (format!("m{attempt}"), format!("arrived{attempt}"));
        let crossing = lab.crossing_as(&name, "traveller", &target);
        let caught = lab.ferry.start(&crossing).kill_in(&name, phase);
        lab.ferry.run(&crossing).ready();

        assert_eq!(lab.ferry.record(&name).phase(), "Ready");
        let arrival = lab.assert_arrived_and(&before, &[&target], &[]);
        assert_eq!(source.run_id(), run_id, "the source ran all the time");
        arrival.assert_booted(&source);
        if caught {
            return;
        }
    }
    panic!("no crossing of {TRIES} could be killed in {phase}");
}

macro_rules! phases {
    ($($test:ident: $phase:literal,)*) => {
        $(#[test] fn $test() { goes_on_after_a_kill_in($phase); })*

        #[test]
        fn no_phase_is_forgotten() {
            assert_eq!(crate::support::PHASES, [$($phase),*]);
        }
    };
}

phases! {
    pending: "Pending",
    validating: "Validating",
    snapshotting: "Snapshotting",
    exporting: "Exporting",
    transferring: "Transferring",
    converting: "Converting",
    importing: "Importing",
    creating: "Creating",
    validating_target: "ValidatingTarget",
    ready: "Ready",
}

#[test]
fn a_vm_that_was_restarted_meanwhile_is_exported_anew() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(48 * MIB)));
    let crossing = lab.crossing("traveller");
    let before = lab.look();
    let caught = (0..TRIES).any(|_| lab.ferry.start(&crossing).kill_in("m", "Transferring"));
    assert!(caught, "it could not be killed in Transferring");
    // The backup job ends with the VM, and the disk moves on.
    source.destroy();
    source.start();
    lab.ferry.run(&crossing).ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
}

#[test]
fn an_interrupt_keeps_the_state_and_the_same_command_goes_on() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(128 * MIB).noise(96 * MIB)));
    let before = lab.look();
    let crossing = lab.crossing("traveller");
    let mut ran = lab.ferry.start(&crossing);
    let limit = std::time::Duration::from_mins(1);
    ran.await_record("m", "transferring", limit, |record| record.phase() == "Transferring");
    ran.signal("INT");
    ran.end().refused(130, &[]);
    lab.ferry.run(&crossing).ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
}
