//! Faults that heal, and faults that do not.

use std::fs;
use std::time::Duration;

use serde_json::json;
use vmferry_testkit::{DiskSpec, GuestSpec, MIB, files_below};

use crate::support::{Lab, Proxy};

/// The port of unencrypted libvirt.
fn tcp_authority(uri: &str) -> String {
    let address = uri.trim_start_matches("qemu+tcp://").trim_end_matches("/system");
    format!("{address}:16509")
}

#[test]
fn a_host_that_comes_back_ends_the_retries() {
    let lab = Lab::system();
    let source = lab.board(&GuestSpec::small("traveller"));
    let proxy = Proxy::to(&tcp_authority(&lab.b.tcp_uri()), false);
    let endpoint = format!("qemu+tcp://127.0.0.1:{}/system", proxy.port());
    let before = lab.look();
    let policy = json!({ "maxAttempts": 20, "backoffDuration": "1s", "maxBackoffDuration": "1s" });
    let crossing = lab
        .crossing("traveller")
        .ssh("a", &lab.a)
        .endpoint("b", &endpoint)
        .set("retryPolicy", policy);
    let mut ran = lab.ferry.start(&crossing);
    let record = ran.await_record("m", "retried", Duration::from_mins(1), |record| {
        record.status("retryAttempts") == "1"
    });
    assert!(!record.status("lastRetryTime").is_empty());
    proxy.open();
    ran.end().ready();

    lab.assert_only_arrived(&before).assert_booted(&source);
    let events = lab.ferry.command(&["describe", "m"]).text;
    assert!(
        events.contains("RetryScheduled") && events.contains("MigrationCompleted"),
        "{events}"
    );
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_an_import_is_taken_up_again() {
    let lab = Lab::system();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(256 * MIB).noise(200 * MIB)));
    let proxy = Proxy::to(&tcp_authority(&lab.b.tcp_uri()), true);
    let endpoint = format!("qemu+tcp://127.0.0.1:{}/system", proxy.port());
    let before = lab.look();
    let policy = json!({ "maxAttempts": 5, "backoffDuration": "1s", "maxBackoffDuration": "1s" });
    let crossing = lab
        .crossing("traveller")
        .ssh("a", &lab.a)
        .endpoint("b", &endpoint)
        .set("retryPolicy", policy);
    let mut ran = lab.ferry.start(&crossing);
    let record = ran.await_record("m", "importing", Duration::from_mins(1), |record| {
        record.phase() == "Importing"
    });
    assert_eq!(record.status("retryAttempts"), "");
    proxy.cut();
    ran.end().ready();

    lab.assert_only_arrived(&before).assert_booted(&source);
}

#[test]
fn attempts_are_used_up_and_nothing_is_left() {
    let lab = Lab::system();
    let source = lab.board(&GuestSpec::small("traveller"));
    let proxy = Proxy::to(&tcp_authority(&lab.b.tcp_uri()), false);
    let before = lab.look();
    let endpoint = format!("qemu+tcp://127.0.0.1:{}/system", proxy.port());
    let policy = json!({ "maxAttempts": 2, "backoffDuration": "1s", "maxBackoffDuration": "1s" });
    let crossing = lab
        .crossing("traveller")
        .ssh("a", &lab.a)
        .endpoint("b", &endpoint)
        .set("retryPolicy", policy);
    let outcome = lab.ferry.run(&crossing);
    outcome.refused(1, &[&endpoint]);

    lab.assert_nothing_left(&before);
    let record = lab.ferry.record("m");
    assert_eq!(
        (record.phase().as_str(), record.status("retryAttempts").as_str()),
        ("Failed", "2")
    );
    assert!(record.holds("Failed"), "{:?}", record.condition("Failed"));
    assert!(
        lab.ferry
            .command(&["describe", "m"])
            .text
            .contains("MaxRetriesExceeded")
    );
    assert_eq!(source.state(), "running");
}

#[test]
fn a_staged_object_that_was_tampered_with_is_exported_again() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(128 * MIB).noise(96 * MIB)));
    let before = lab.look();
    let mut ran = lab.ferry.start(&lab.crossing("traveller"));
    ran.await_record("m", "converting or importing", Duration::from_mins(1), |record| {
        record.holds("Transferred")
    });
    ran.signal("STOP");
    let staged = files_below(&lab.ferry.staging());
    let object = staged
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(object, bytes).unwrap();
    ran.signal("CONT");
    ran.end().ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
}
