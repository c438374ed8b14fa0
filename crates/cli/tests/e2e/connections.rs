//! Every way to a host, on either side.

use serde_json::json;
use vmferry_testkit::{DiskSpec, GuestSpec, MIB};

use crate::support::{Crossing, Lab};

/// Moves a running VM and checks that it boots, over connections that `change` sets.
#[track_caller]
fn crosses(change: impl Fn(&Lab, Crossing) -> Crossing) {
    let lab = Lab::system();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(48 * MIB).noise(16 * MIB)));
    let before = lab.look();
    lab.ferry.run(&change(&lab, lab.crossing("traveller"))).ready();
    lab.assert_only_arrived(&before).assert_booted(&source);
}

#[test]
fn ssh_to_ssh() {
    crosses(|lab, crossing| crossing.ssh("a", &lab.a).ssh("b", &lab.b));
}

#[test]
fn tcp_to_unix() {
    crosses(|lab, crossing| crossing.endpoint("a", &lab.a.tcp_uri()));
}

#[test]
fn ssh_to_tcp() {
    crosses(|lab, crossing| crossing.ssh("a", &lab.a).endpoint("b", &lab.b.tcp_uri()));
}

#[test]
fn ssh_with_a_password_to_ssh_with_a_key() {
    crosses(|lab, crossing| {
        let access = lab.a.ssh();
        let secret = json!({ "username": "root", "password": access.password(), "known_hosts": access.known_hosts() });
        let endpoint = format!("qemu+ssh://{}/system", access.authority);
        crossing.endpoint("a", &endpoint).secret("a", secret).ssh("b", &lab.b)
    });
}

#[test]
fn a_vm_that_is_shut_off_crosses_by_ssh() {
    let lab = Lab::system();
    let source = lab
        .a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::raw(48 * MIB).noise(16 * MIB)));
    let before = lab.look();
    lab.ferry
        .run(&lab.crossing("traveller").ssh("a", &lab.a).ssh("b", &lab.b))
        .ready();
    let arrival = lab.assert_only_arrived(&before);
    lab.b.virsh(["start", "arrived"]);
    arrival.assert_booted(&source);
}

#[test]
fn a_secret_is_said_nowhere() {
    let lab = Lab::system();
    lab.board(&GuestSpec::small("traveller"));
    let password = lab.b.ssh().password();
    let access = lab.b.ssh();
    let secret = json!({ "password": password, "known_hosts": access.known_hosts() });
    let crossing = lab
        .crossing("traveller")
        .ssh("a", &lab.a)
        .endpoint("b", &lab.b.ssh_uri())
        .secret("b", secret);
    let outcome = lab.ferry.run(&crossing);
    outcome.ready();
    let key = lab.a.ssh().private_key();
    let key_line = key.lines().nth(1).unwrap();
    let mut said = vec![outcome.text.clone(), lab.ferry.command(&["describe", "m"]).text];
    said.extend(lab.ferry.saved());
    for text in said {
        assert!(
            !text.contains(&password) && !text.contains(key_line),
            "a secret shows in: {text}"
        );
    }
}
