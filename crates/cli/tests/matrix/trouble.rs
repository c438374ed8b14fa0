//! What goes wrong on the way, between hypervisors of different kinds.

use std::time::{Duration, Instant};

use crate::journey::{ARRIVED, Journey, VM};
use crate::side::Kind;
use crate::support::Place;

/// How long a phase may take to be met.
const LIMIT: Duration = Duration::from_mins(1);
/// How long going on may take. What a vSphere server holds for whoever was killed ends by itself after five minutes.
const SOON: Duration = Duration::from_secs(90);

/// Deleted while it is under way, nothing of a migration stays anywhere.
#[track_caller]
fn deleted_in(phase: &str, from: Kind, to: Kind) {
    let journey = Journey::new(from, to, Place::s3());
    let run = journey.ferry.start(&journey.crossing().limit("4MB"));
    assert!(run.kill_in("m", phase), "it was not caught in {phase}");
    journey.ferry.command(&["delete", "m"]).ready();
    journey.assert_left(&[]);
}

/// Killed while it is under way, a run that follows comes to the same end.
#[track_caller]
fn killed_in(phase: &str, from: Kind, to: Kind) {
    let journey = Journey::new(from, to, Place::s3());
    let crossing = journey.crossing();
    let mut run = journey.ferry.start(&crossing.clone().limit("4MB"));
    if phase == "Importing" {
        run.await_record("m", "importing", LIMIT, |record| {
            record.phase() == phase && journey.to.is_moving()
        });
        run.kill();
    } else {
        run.kill_in("m", phase);
    }
    let start = Instant::now();
    let outcome = journey.run(&crossing);
    assert_eq!(journey.arrived(&outcome), journey.from.found(VM));
    assert!(journey.to.disks(ARRIVED).len() == 2);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// Servers that are restarted on the way cost an attempt each.
#[test]
fn both_servers_are_restarted() {
    let journey = Journey::new(Kind::Vsphere, Kind::Esxi, Place::s3());
    let mut run = journey.ferry.start(&journey.crossing().limit("4MB"));
    for (phase, side) in [("Transferring", &journey.from), ("Importing", &journey.to)] {
        run.await_record("m", phase, LIMIT, |record| record.phase() == phase && side.is_moving());
        side.restart();
    }
    let outcome = run.end();
    assert_eq!(journey.arrived(&outcome), journey.from.found(VM));
}

macro_rules! phases {
    ($($name:ident: $phase:literal;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn killed_on_the_way_to_vsphere() {
                killed_in($phase, Kind::Proxmox, Kind::Vsphere);
            }

            #[test]
            fn killed_on_the_way_to_proxmox() {
                killed_in($phase, Kind::Vsphere, Kind::Proxmox);
            }

            #[test]
            fn deleted_on_the_way_to_vsphere() {
                deleted_in($phase, Kind::Libvirt, Kind::Vsphere);
            }

            #[test]
            fn deleted_on_the_way_to_proxmox() {
                deleted_in($phase, Kind::Libvirt, Kind::Proxmox);
            }
        })*
    };
}

phases! {
    transferring: "Transferring";
    importing: "Importing";
}

/// Nobody can say how long this takes: wherever it is caught, or if it is not, the end is the same.
#[test]
fn killed_while_the_vm_is_made() {
    killed_in("Creating", Kind::Libvirt, Kind::Vsphere);
    killed_in("Creating", Kind::Libvirt, Kind::Proxmox);
}
