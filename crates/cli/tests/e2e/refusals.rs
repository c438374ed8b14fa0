//! Bad input: each ends in a message that names object, field and remedy, in the right condition, with nothing made or left.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, MIB, run};

use crate::support::{Crossing, Ferry, Lab};

/// Runs a crossing that must fail for `reason` before anything is made, and whose message has each of `texts`.
#[track_caller]
fn fails(lab: &Lab, crossing: &Crossing, reason: &str, texts: &[&str]) {
    let before = lab.look();
    lab.ferry.run(crossing).refused(1, texts);
    lab.assert_nothing_left(&before);
    let record = lab.ferry.record(&crossing.name);
    assert_eq!(record.phase(), "Failed");
    assert!(record.holds("Failed"), "{:?}", record.condition("Failed"));
    let validated = record.condition("Validated").unwrap();
    assert_eq!(
        (&validated["status"], Ferry::why(&record)),
        (&json!("False"), reason.to_owned()),
        "{validated}"
    );
    for text in texts {
        assert!(
            record.status("message").contains(text),
            "`{text}` is not in: {}",
            record.status("message")
        );
    }
}

#[test]
fn a_vm_that_the_host_does_not_have() {
    let lab = Lab::session();
    fails(&lab, &lab.crossing("nobody"), "SourceNotFound", &["nobody"]);
}

#[test]
fn a_pool_that_the_host_does_not_have() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let crossing = lab.crossing("traveller").set("targetStorageHint", json!("nowhere"));
    fails(&lab, &crossing, "StorageNotFound", &["nowhere", "targetStorageHint"]);
}

#[test]
fn a_network_that_the_host_does_not_have() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let hints = json!([{ "name": "eth0", "network": "nowhere" }]);
    let crossing = lab.crossing("traveller").set("targetNetworkHints", hints);
    fails(&lab, &crossing, "NetworkNotFound", &["nowhere", "targetNetworkHints"]);
}

#[test]
fn a_staging_path_that_is_not_there() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let path = lab.ferry.path().join("unmounted").display().to_string();
    let crossing = lab
        .crossing("traveller")
        .set("storage", json!({ "type": "nfs", "path": path }));
    fails(&lab, &crossing, "StorageNotFound", &[&path]);
}

#[test]
fn a_disk_is_not_shrunk() {
    let lab = Lab::session();
    lab.a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(2048 * MIB)));
    let crossing = lab
        .crossing("traveller")
        .set("targetResourceHints", json!({ "disk": 1 }));
    fails(&lab, &crossing, "InvalidHint", &["targetResourceHints.disk", "vda"]);
}

#[test]
fn a_format_that_the_provider_cannot_take() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let crossing = lab.crossing("traveller").set("targetDiskFormat", json!("vmdk"));
    fails(&lab, &crossing, "UnsupportedFormat", &["targetDiskFormat", "qcow2"]);
}

#[test]
fn credentials_that_are_wrong_or_missing() {
    let lab = Lab::system();
    lab.board(&GuestSpec::small("traveller"));
    let access = lab.b.ssh();
    let (uri, hosts) = (lab.b.ssh_uri(), access.known_hosts());
    let with = |secret| {
        lab.crossing("traveller")
            .ssh("a", &lab.a)
            .endpoint("b", &uri)
            .secret("b", secret)
    };
    let named = |name: &str, mut crossing: Crossing| {
        crossing.name = name.to_owned();
        crossing
    };

    let stranger = with(json!({ "ssh-privatekey": access.stranger_key(), "known_hosts": hosts }));
    fails(
        &lab,
        &named("stranger", stranger),
        "AuthenticationFailed",
        &[&access.authority, "ssh-privatekey"],
    );
    let password = with(json!({ "password": "not-the-password", "known_hosts": hosts }));
    fails(
        &lab,
        &named("password", password),
        "AuthenticationFailed",
        &[&access.authority, "password"],
    );
    let none = with(json!({ "known_hosts": hosts }));
    fails(&lab, &named("none", none), "AuthenticationFailed", &["ssh-privatekey"]);
}

#[test]
fn a_host_key_that_is_not_the_trusted_one() {
    let lab = Lab::system();
    lab.board(&GuestSpec::small("traveller"));
    let access = lab.b.ssh();
    let with = |name: &str, hosts: Option<String>| {
        let mut secret = json!({ "ssh-privatekey": access.private_key() });
        if let Some(hosts) = hosts {
            secret["known_hosts"] = json!(hosts);
        }
        let mut crossing = lab
            .crossing("traveller")
            .ssh("a", &lab.a)
            .endpoint("b", &lab.b.ssh_uri())
            .secret("b", secret);
        crossing.name = name.to_owned();
        crossing
    };
    let address = access.authority.split(':').next().unwrap();
    fails(
        &lab,
        &with("impostor", Some(access.impostor_hosts())),
        "HostKeyMismatch",
        &[address, "known_hosts"],
    );
    fails(
        &lab,
        &with("unknown", None),
        "HostKeyMismatch",
        &[address, "known_hosts"],
    );
}

#[test]
fn a_vm_of_another_with_the_targets_name_is_never_touched() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let foreign = lab.b.boot(&GuestSpec::small("arrived"));
    let run_id = foreign.run_id();
    fails(&lab, &lab.crossing("traveller"), "TargetNameTaken", &["arrived"]);
    assert_eq!(lab.ferry.command(&["delete", "m"]).code, 0);
    assert_eq!((foreign.run_id(), foreign.state().as_str()), (run_id, "running"));
    assert!(foreign.xml().contains("<name>arrived</name>"));
}

#[test]
fn a_pool_without_space() {
    let lab = Lab::system();
    lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(40 * MIB)));
    lab.b.add_small_pool("tiny", 24 * MIB);
    let before = lab.look();
    let policy = json!({ "maxAttempts": 1, "backoffDuration": "1s", "maxBackoffDuration": "1s" });
    let crossing = lab
        .crossing("traveller")
        .ssh("a", &lab.a)
        .ssh("b", &lab.b)
        .set("retryPolicy", policy);
    lab.ferry
        .run(&crossing.set("targetStorageHint", json!("tiny")))
        .refused(1, &["tiny"]);
    lab.assert_nothing_left(&before);
    assert_eq!(lab.ferry.record("m").phase(), "Failed");
}

#[test]
fn of_two_migrations_of_one_vm_the_older_goes_on() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(32 * MIB)));
    let before = lab.look();
    let first = lab
        .ferry
        .write("1.yaml", &lab.crossing_as("first", "traveller", "arrived").to_yaml());
    let mut second = lab.crossing_as("second", "traveller", "arrived-too");
    (second.vm, second.providers, second.secrets) = (None, Vec::new(), Vec::new());
    let second = lab.ferry.write("2.yaml", &second.to_yaml());
    let outcome = lab.ferry.start_files(&[&first, &second]).end();
    outcome.refused(1, &["default/first", "already migrates the same VM"]);

    assert_eq!(lab.ferry.record("first").phase(), "Ready");
    let record = lab.ferry.record("second");
    assert_eq!(record.phase(), "Failed");
    assert_eq!(record.condition("Validated").unwrap()["reason"], "ConflictingMigration");
    lab.assert_only_arrived(&before).assert_booted(&source);
}

/// Writes an image whose backing file is named without being looked at.
fn image_on(host: &Host, name: &str, backing: &str, format: &str) -> DiskSpec {
    let path = host.pool_dir().join(name);
    run(Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing])
        .arg(&path)
        .arg("16M"));
    host.give(&path);
    DiskSpec::existing(path, Format::Qcow2)
}

#[test]
fn backing_files_that_must_not_be_followed() {
    let lab = Lab::session();
    let outside = lab.a.dir().join("outside.raw");
    std::fs::write(&outside, vec![7; 1 << 20]).unwrap();
    lab.a.give(&outside);
    let outside = outside.display().to_string();
    let json_name = format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{outside}\"}}}}");
    let cases = [
        ("outside", outside.as_str(), "raw", "HostileBackingFile"),
        ("up", "../outside.raw", "raw", "HostileBackingFile"),
        ("json", json_name.as_str(), "raw", "HostileBackingFile"),
        ("device", "/dev/zero", "raw", "HostileBackingFile"),
        ("server", "nbd://127.0.0.1:1/x", "raw", "HostileBackingFile"),
        ("itself", "itself.qcow2", "qcow2", "HostileBackingFile"),
        ("missing", "not-there.qcow2", "qcow2", "SourceNotFound"),
    ];
    for (name, backing, format, reason) in cases {
        let disk = image_on(&lab.a, &format!("{name}.qcow2"), backing, format);
        lab.a.define(&GuestSpec::micro(name).disk(disk));
        fails(
            &lab,
            &lab.crossing_as(name, name, "arrived"),
            reason,
            &[&format!("{name}.qcow2"), "backing"],
        );
    }
    assert!(Path::new(&outside).exists());
}
