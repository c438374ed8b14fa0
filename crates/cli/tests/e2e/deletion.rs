//! `vmferry delete` of a migration that was stopped in any phase: nothing is left.

use vmferry_testkit::{DiskSpec, GuestSpec, MIB};

use crate::support::Lab;

/// As in the tests of restarts: only the catching is tried again.
const TRIES: u32 = 25;

#[track_caller]
fn leaves_nothing_when_deleted_in(phase: &str) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(32 * MIB)));
    let (before, run_id) = (lab.look(), source.run_id());
    for attempt in 0..TRIES {
        let name = format!("m{attempt}");
        let crossing = lab.crossing_as(&name, "traveller", "arrived");
        let caught = lab.ferry.start(&crossing).kill_in(&name, phase);
        let is_over = lab.ferry.record(&name).phase() == "Ready";
        let outcome = lab.ferry.command(&["delete", &name]);
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        assert!(lab.ferry.find(&name).is_none(), "the migration itself is gone");
        if is_over {
            // A VM that arrived is its user's. Away with it, for the next try.
            let _ = lab.b.try_virsh(["destroy", "arrived"]);
            lab.b.virsh(["undefine", "arrived", "--remove-all-storage"]);
        }
        lab.assert_nothing_left(&before);
        assert_eq!(source.run_id(), run_id, "the source ran all the time");
        if caught {
            return;
        }
    }
    panic!("no crossing of {TRIES} could be killed in {phase}");
}

macro_rules! phases {
    ($($test:ident: $phase:literal,)*) => {
        $(#[test] fn $test() { leaves_nothing_when_deleted_in($phase); })*

        #[test]
        fn no_phase_is_forgotten() {
            let phases = crate::support::PHASES;
            // A migration that is Ready has nothing but the VM that arrived, which stays: see below.
            assert_eq!(phases[..phases.len() - 1], [$($phase),*]);
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
}

#[test]
fn a_vm_that_arrived_stays_when_its_migration_is_deleted() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::small("traveller"));
    let before = lab.look();
    lab.ferry.run(&lab.crossing("traveller")).ready();
    assert_eq!(lab.ferry.command(&["delete", "m"]).code, 0);
    assert!(lab.ferry.find("m").is_none());
    lab.assert_only_arrived(&before).assert_booted(&source);
}
