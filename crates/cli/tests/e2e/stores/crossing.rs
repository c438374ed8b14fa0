//! VMs cross by every kind of storage, and what is staged is an ordinary image.

use std::process::Command;

use serde_json::json;
use vmferry_testkit::{Counters, DiskSpec, Format, Guest, GuestSpec, MIB, image, run};

use crate::support::{Lab, Place};

/// A running VM with two disks crosses as of one instant; nothing stays in the storage, and its credentials show nowhere.
#[track_caller]
fn crosses(place: &Place, target: &str) {
    let lab = Lab::session();
    let spec = GuestSpec::micro("traveller")
        .disk(DiskSpec::qcow2(64 * MIB).noise(24 * MIB))
        .disk(DiskSpec::raw(24 * MIB).noise(4 * MIB));
    let source = lab.board(&spec);
    let before = lab.look();
    let crossing = lab
        .crossing("traveller")
        .by(place)
        .set("targetDiskFormat", json!(target));
    let outcome = lab.ferry.run(&crossing);
    outcome.ready();

    let arrival = lab.assert_only_arrived(&before);
    assert_eq!(
        place.everything(),
        Vec::<String>::new(),
        "something stays in the storage"
    );
    let disks = &arrival.guest.disks;
    let counters = arrival.assert_booted(&source);
    counters.assert_consistent_with(Counters::read_second_disk(&disks[1].0, disks[1].1));
    let record = lab.ferry.record("m");
    let url = record.status("intermediateStorageURL");
    assert!(
        url.starts_with(&place.url()),
        "{url} does not start with {}",
        place.url()
    );
    assert_eq!(record.status("retryAttempts"), "");
    let described = lab.ferry.command(&["describe", "m"]).text;
    assert!(described.contains("Upload to storage started; "), "{described}");

    let Some(hidden) = place.hidden() else { return };
    for said in lab.ferry.saved().into_iter().chain([outcome.text, described]) {
        assert!(!said.contains(&hidden), "a secret shows in: {said}");
    }
}

/// What is staged of a VM that is shut off is its disk, for any tool that can get it.
#[track_caller]
fn stays_as_an_ordinary_image(place: &Place) {
    let lab = Lab::session();
    let source = lab
        .a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(20 * MIB)));
    let before = lab.look();
    let crossing = lab
        .crossing("traveller")
        .by(place)
        .set("cleanupPolicy", json!({ "deleteIntermediate": false }));
    lab.ferry.run(&crossing).ready();

    let arrival = lab.assert_only_arrived(&before);
    let (from, to) = (&source.disks[0], &arrival.guest.disks[0]);
    image::assert_same(&from.0, from.1, &to.0, to.1);
    let record = lab.ferry.record("m");
    let url = record.status("intermediateStorageURL");
    let key = url.split_once("/default/").unwrap().1;
    let other: Vec<_> = place
        .everything()
        .into_iter()
        .filter(|name| !name.contains(key) && !url.contains(&**name) && !format!("/buckets/{url}").contains(&**name))
        .collect();
    assert!(other.is_empty(), "more than the object stays: {other:?}");

    assert_staged(&lab, place, &source);
}

/// What is staged of a VM that runs is its disk as of the instant at which it was frozen. The VM is paused, so that the instant lasts.
#[track_caller]
fn is_the_frozen_disk(place: &Place) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(20 * MIB)));
    lab.a.virsh(["suspend", "traveller"]);
    let before = lab.look();
    let crossing = lab
        .crossing("traveller")
        .by(place)
        .set("cleanupPolicy", json!({ "deleteIntermediate": false }));
    lab.ferry.run(&crossing).ready();

    lab.assert_only_arrived(&before);
    assert_eq!(source.state(), "paused");
    assert_staged(&lab, place, &source);
}

/// The staged object is the first disk of `source`: by its content, and as the checksum has it.
#[track_caller]
fn assert_staged(lab: &Lab, place: &Place, source: &Guest<'_>) {
    let (from, record) = (&source.disks[0], lab.ferry.record("m"));
    let fetched = lab.ferry.path().join("fetched.qcow2");
    place.fetch(&record.status("intermediateStorageURL"), &fetched);
    image::assert_sound(&fetched);
    image::assert_same(&from.0, from.1, &fetched, Format::Qcow2);
    let sum = run(Command::new("sha256sum").arg(&fetched));
    let sum = format!("sha256:{}", sum.split(' ').next().unwrap());
    assert_eq!(record.status("checksum"), sum);
}

macro_rules! places {
    ($($name:ident: $place:expr, $target:literal;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn a_running_vm_crosses() {
                crosses(&$place, $target);
            }

            #[test]
            fn what_is_staged_is_an_ordinary_image() {
                stays_as_an_ordinary_image(&$place);
            }
        })*
    };
}

places! {
    s3: Place::s3(), "qcow2";
    apache: Place::apache(), "raw";
    nginx: Place::nginx(), "qcow2";
    nfs3: Place::nfs3(), "raw";
    nfs4: Place::nfs4(), "qcow2";
}

#[test]
fn what_is_staged_of_a_running_vm_is_its_frozen_disk() {
    is_the_frozen_disk(&Place::s3());
    is_the_frozen_disk(&Place::nfs3());
}
