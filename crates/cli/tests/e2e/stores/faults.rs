//! Storage that goes away and comes back, and storage that does not keep what it was given.

use std::time::Duration;

use serde_json::json;
use vmferry_testkit::{DiskSpec, GuestSpec, MIB, wait_for};

use crate::support::{Lab, Place, Ran};

/// Long enough for anything on a machine that is busy.
const LONG: Duration = Duration::from_mins(1);

/// Waits until so many bytes passed by the way to the storage.
#[track_caller]
fn await_passed(place: &Place, bytes: u64) {
    let from = place.proxy().passed();
    wait_for(format!("{bytes} bytes on their way"), LONG, || {
        (place.proxy().passed() - from >= bytes).then_some(())
    });
}

/// A VM crosses although `disturb` does something in the middle of the transfer and again in the middle of the import; that
/// costs no attempt.
#[track_caller]
fn crosses_in_spite(mut place: Place, disturb: impl Fn(&mut Place)) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(96 * MIB).noise(64 * MIB)));
    let before = lab.look();
    let crossing = lab.crossing("traveller").by(&place).limit("16MiB");
    let mut ran = lab.ferry.start(&crossing);
    for phase in ["Transferring", "Importing"] {
        ran.await_record("m", phase, LONG, |record| record.phase() == phase);
        await_passed(&place, 16 * MIB);
        disturb(&mut place);
    }
    ran.end().ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(place.everything(), Vec::<String>::new());
    assert_eq!(lab.ferry.record("m").status("retryAttempts"), "", "it cost an attempt");
}

#[test]
fn a_server_that_is_killed_and_comes_back() {
    crosses_in_spite(Place::nfs4(), Place::restart);
}

/// Away for longer than a moment, and back.
fn leave_and_return(place: &mut Place) {
    place.proxy().shut();
    std::thread::sleep(Duration::from_secs(3));
    place.proxy().open();
}

#[test]
fn s3_that_is_away_for_a_while() {
    crosses_in_spite(Place::s3(), leave_and_return);
}

#[test]
fn http_that_is_away_for_a_while() {
    crosses_in_spite(Place::nginx(), leave_and_return);
}

#[test]
fn nfs_connections_that_are_cut() {
    crosses_in_spite(Place::nfs3(), |place| place.proxy().cut());
}

/// Stops vmferry as soon as all is staged, lets it rot, and lets vmferry go on.
#[track_caller]
fn rot_when_staged(ran: &mut Ran, place: &Place) {
    let staged = |record: &crate::support::Record| record.holds("Transferred");
    ran.await_record("m", "Transferred", LONG, staged);
    ran.signal("STOP");
    place.rot();
    ran.signal("CONT");
}

#[track_caller]
fn is_exported_again(place: &Place) {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(96 * MIB).noise(48 * MIB)));
    let before = lab.look();
    let mut ran = lab.ferry.start(&lab.crossing("traveller").by(place).limit("32MiB"));
    rot_when_staged(&mut ran, place);
    ran.end().ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
    assert_eq!(lab.ferry.record("m").status("retryAttempts"), "1");
    assert_eq!(place.everything(), Vec::<String>::new());
}

#[test]
fn what_is_replaced_in_s3_is_exported_again() {
    is_exported_again(&Place::s3());
}

#[test]
fn what_rots_on_http_is_exported_again() {
    is_exported_again(&Place::apache());
}

#[test]
fn what_rots_on_nfs_is_exported_again() {
    is_exported_again(&Place::nfs3());
}

#[test]
fn what_rots_each_time_fails_and_leaves_nothing() {
    let place = Place::nfs4();
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(32 * MIB)));
    let before = lab.look();
    let policy = json!({ "maxAttempts": 1, "backoffDuration": "1s", "maxBackoffDuration": "1s" });
    let crossing = lab
        .crossing("traveller")
        .by(&place)
        .limit("32MiB")
        .set("retryPolicy", policy);
    let mut ran = lab.ferry.start(&crossing);
    rot_when_staged(&mut ran, &place);
    ran.await_record("m", "exported again", LONG, |record| {
        record.status("retryAttempts") == "1" && !record.holds("Transferred")
    });
    rot_when_staged(&mut ran, &place);
    ran.end().refused(1, &["sha256"]);
    lab.assert_nothing_left(&before);
    assert_eq!(place.everything(), Vec::<String>::new());
    let record = lab.ferry.record("m");
    assert_eq!(
        (record.phase().as_str(), record.status("retryAttempts").as_str()),
        ("Failed", "1")
    );
    assert_eq!(source.state(), "running");
}
