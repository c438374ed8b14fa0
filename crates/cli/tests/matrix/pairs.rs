//! Every ordered pair of hypervisors, over every kind of staging storage.

use serde_json::json;

use crate::journey::{ARRIVED, Journey, MAC};
use crate::side::{Found, Kind};
use crate::support::Place;

/// A VM of two disks that is shut off crosses.
#[track_caller]
fn crosses(from: Kind, to: Kind, place: Place) {
    let journey = Journey::new(from, to, place);
    let outcome = journey.run(&journey.crossing());
    let found = journey.arrived(&outcome);
    let expected = journey.from.found(crate::journey::VM);
    assert_eq!(found, expected);
    assert_eq!(found.macs, [MAC]);
    assert_eq!(journey.from.sessions() + journey.to.sessions(), 0, "it did not log out");
    let record = journey.record();
    assert_eq!(record.status("retryAttempts"), "");
    let url = record.status("intermediateStorageURL");
    let staged = if from.is_vsphere() || to.is_vsphere() {
        ".vmdk"
    } else {
        ".qcow2"
    };
    assert!(url.starts_with(&journey.place.url()) && url.ends_with(staged), "{url}");
}

/// Where the target can fetch the object by itself, none of it comes through here on its way in.
#[test]
fn a_node_fetches_the_object_by_itself() {
    let journey = Journey::new(Kind::Libvirt, Kind::Proxmox, Place::s3());
    let outcome = journey.run(&journey.crossing());
    journey.arrived(&outcome);
    let described = journey.ferry.command(&["describe", "m"]).text;
    assert!(described.contains("the target fetched it by itself"), "{described}");
    let (reads, received) = (journey.place.reads(), journey.to.received());
    assert_eq!(
        reads.iter().filter(|by_us| **by_us).count(),
        0,
        "the object was read by vmferry"
    );
    assert_eq!(reads.len(), 2, "each object was read once, by a node");
    assert!(received < 64 << 10, "{received} bytes were sent to the API");
}

/// What the target is told to have otherwise, for a VM of three disks.
#[track_caller]
fn heeds_hints(from: Kind, to: Kind, place: Place) {
    let journey = Journey::of(from, to, place, 3, false);
    let hints = json!({ "cpu": 2, "memory": 96, "disk": 1 });
    let outcome = journey.run(&journey.crossing().set("targetResourceHints", hints));
    let found = journey.arrived(&outcome);
    let expected = Found {
        macs: vec![MAC.to_owned()],
        cpus: 2,
        memory: 96,
        running: false,
    };
    assert_eq!(found, expected);
    let (path, _) = &journey.to.disks(ARRIVED)[0];
    assert!(vmferry_testkit::image::info(path).contains("\"virtual-size\": 1073741824"));
}

/// A VM that runs crosses as of one instant. It is not asked to do anything there, and goes on here.
#[track_caller]
fn runs_on(from: Kind, to: Kind) {
    // One disk or three, over one storage or another.
    let (place, disks) = if [from, to].contains(&Kind::Esxi) {
        (Place::apache(), 3)
    } else {
        (Place::s3(), 1)
    };
    let journey = Journey::of(from, to, place, disks, true);
    let mut crossing = journey.crossing();
    crossing.vm = Some(json!({ "providerRef": { "name": "a" }, "powerState": "Off" }));
    journey.run(&crossing).ready();
    assert!(journey.from.found(crate::journey::VM).running);
    journey.assert_left(&journey.to.names(ARRIVED));
    // A guest counts on its first two disks, where it is a real one.
    let untouched = if from.is_vsphere() { 0 } else { 2 };
    journey.assert_same(untouched.min(disks)..disks);
}

macro_rules! pairs {
    ($($name:ident: $from:ident => $to:ident;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn over_s3() {
                crosses(Kind::$from, Kind::$to, Place::s3());
            }

            #[test]
            fn over_http() {
                crosses(Kind::$from, Kind::$to, Place::apache());
            }

            #[test]
            fn over_nfs() {
                crosses(Kind::$from, Kind::$to, Place::nfs4());
            }

            #[test]
            fn with_hints() {
                heeds_hints(Kind::$from, Kind::$to, Place::nfs3());
            }

            #[test]
            fn running() {
                runs_on(Kind::$from, Kind::$to);
            }
        })*
    };
}

pairs! {
    libvirt_to_libvirt: Libvirt => Libvirt;
    libvirt_to_vsphere: Libvirt => Vsphere;
    libvirt_to_proxmox: Libvirt => Proxmox;
    vsphere_to_libvirt: Vsphere => Libvirt;
    vsphere_to_proxmox: Vsphere => Proxmox;
    proxmox_to_libvirt: Proxmox => Libvirt;
    proxmox_to_vsphere: Proxmox => Vsphere;
    libvirt_to_esxi: Libvirt => Esxi;
    esxi_to_libvirt: Esxi => Libvirt;
}
