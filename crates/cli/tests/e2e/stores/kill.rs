//! `kill -9` in the middle of a transfer to each kind of storage.

use std::time::Duration;

use vmferry_testkit::{DiskSpec, GuestSpec, MIB, wait_for};

use crate::support::{Lab, Place};

/// Bytes of noise on the disk.
const DATA: u64 = 96 * MIB;
/// How many parts may be under way, or arrived and not noted yet.
const AT_RISK: usize = 4;

/// Starts a crossing and kills vmferry when a part of the disk is staged.
#[track_caller]
fn killed_in_mid_transfer(lab: &Lab, place: &Place) {
    // Slow enough to be caught in the middle.
    let mut ran = lab.ferry.start(&lab.crossing("traveller").by(place).limit("16MiB"));
    let limit = Duration::from_mins(1);
    ran.await_record("m", "Transferring", limit, |record| record.phase() == "Transferring");
    let from = place.proxy().passed();
    wait_for("half of the disk", limit, || {
        (place.proxy().passed() - from >= DATA / 2).then_some(())
    });
    ran.kill();
    assert_eq!(lab.ferry.record("m").phase(), "Transferring");
}

#[track_caller]
fn goes_on(place: &Place) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(2 * DATA).noise(DATA)));
    let before = lab.look();
    killed_in_mid_transfer(&lab, place);
    lab.ferry.run(&lab.crossing("traveller").by(place)).ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(place.everything(), Vec::<String>::new());
    if let Some(again) = place.sent_again() {
        assert!(again <= AT_RISK, "{again} parts were sent twice");
    }
    // Once there and once back, and not once more.
    let most = 2 * DATA + DATA / 2;
    let passed = place.proxy().passed();
    assert!(
        passed < most,
        "{} MiB passed for {} MiB there and back",
        passed / MIB,
        DATA / MIB
    );
}

#[track_caller]
fn can_be_deleted(place: &Place) {
    let lab = Lab::session();
    lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(2 * DATA).noise(DATA)));
    let before = lab.look();
    killed_in_mid_transfer(&lab, place);
    assert!(!place.everything().is_empty(), "nothing was staged");
    let outcome = lab.ferry.command(&["delete", "m"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert!(lab.ferry.find("m").is_none());
    lab.assert_nothing_left(&before);
    assert_eq!(place.everything(), Vec::<String>::new());
}

#[test]
fn s3_goes_on() {
    goes_on(&Place::s3());
}

#[test]
fn ranges_over_http_go_on() {
    goes_on(&Place::apache());
}

#[test]
fn segments_over_http_go_on() {
    goes_on(&Place::nginx());
}

#[test]
fn s3_is_clean_after_a_deletion() {
    can_be_deleted(&Place::s3());
}

#[test]
fn http_is_clean_after_a_deletion() {
    can_be_deleted(&Place::nginx());
}

#[test]
fn nfs3_goes_on() {
    goes_on(&Place::nfs3());
}

#[test]
fn nfs4_goes_on() {
    goes_on(&Place::nfs4());
}

#[test]
fn nfs4_is_clean_after_a_deletion() {
    can_be_deleted(&Place::nfs4());
}
