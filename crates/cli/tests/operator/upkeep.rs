//! The status of Providers and of the VMs that migrations touch, of real hosts, where nobody else keeps it.

use std::time::Duration;

use serde_json::{Value, json};
use vmferry_testkit::vsphere::{DiskSeed, VmSeed, Vsphere};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, MIB, poll};

use crate::side::{Kind, Side as _, start};
use crate::support::{Lab, Place};

const API: &str = "infra.virtrigaud.io/v1beta1";
/// How long a crossing may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Within which what became of something is told: it is looked at once a minute.
const TOLD: Duration = Duration::from_secs(85);

fn status(lab: &Lab, kind: &str, name: &str) -> Value {
    let found = lab.ferry.cluster().get((API, kind), "default", name);
    found.map(|object| object["status"].clone()).unwrap_or_default()
}

/// A condition: its status and its reason.
fn condition<'s>(status: &'s Value, kind: &str) -> Option<(&'s str, &'s str)> {
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((found["status"].as_str()?, found["reason"].as_str()?))
}

/// Waits until a status is as wanted, and gives it.
#[track_caller]
fn await_status(lab: &Lab, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = poll(TOLD, || {
        std::thread::sleep(Duration::from_millis(500));
        Some(status(lab, kind, name)).filter(&wanted)
    });
    found.unwrap_or_else(|| panic!("{kind} {name} is {:#}", status(lab, kind, name)))
}

#[track_caller]
fn await_provider(lab: &Lab, name: &str, healthy: bool, said: (&str, &str)) -> Value {
    await_status(lab, "Provider", name, |status| {
        status["healthy"] == healthy && condition(status, "ProviderAvailable") == Some(said)
    })
}

#[test]
fn a_host_that_goes_and_comes_back_is_told_and_so_are_its_vms() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(32 * MIB).noise(6 * MIB)));
    let mut ran = lab.ferry.start(&lab.crossing("traveller"));
    for name in ["a", "b"] {
        let told = await_provider(&lab, name, true, ("True", "Connected"));
        assert_eq!(told["healthCheckedBy"], "vmferry");
    }
    ran.await_record("m", "ready", LIMIT, |record| record.phase() == "Ready");
    for (name, host) in [("traveller", &lab.a), ("arrived", &lab.b)] {
        let told = await_status(&lab, "VirtualMachine", name, |status| {
            condition(status, "Ready") == Some(("True", "VMFound")) && status["powerState"] == "On"
        });
        assert_eq!(
            (&told["id"], &told["phase"], &told["ips"]),
            (&json!(host.virsh(["domuuid", name])), &json!("Running"), &Value::Null)
        );
    }

    lab.a.kill_daemon();
    lab.b.virsh(["destroy", "arrived"]);
    await_provider(&lab, "a", false, ("False", "HostUnreachable"));
    let told = await_status(&lab, "VirtualMachine", "traveller", |status| {
        condition(status, "Ready") == Some(("Unknown", "HostUnreachable"))
    });
    assert_eq!(
        (&told["powerState"], &told["phase"]),
        (&json!("On"), &json!("Running")),
        "what was known stays"
    );
    await_status(&lab, "VirtualMachine", "arrived", |status| {
        status["powerState"] == "Off" && status["phase"] == "Stopped"
    });
    await_provider(&lab, "b", true, ("True", "Connected"));

    lab.a.start_daemon();
    await_provider(&lab, "a", true, ("True", "Connected"));
    await_status(&lab, "VirtualMachine", "traveller", |status| {
        condition(status, "Ready") == Some(("True", "VMFound"))
    });
    assert_eq!(source.state(), "running");
    ran.end().ready();
}

/// From vSphere to Proxmox VE: the tools of the one and the agent of the other say them.
#[test]
fn the_addresses_of_guests_are_told_while_they_say_them() {
    let (lab, vsphere, place) = (Lab::session(), Vsphere::start(), Place::s3());
    let proxmox = start(Kind::Proxmox, "b");
    let image = lab.ferry.path().join("disk.qcow2");
    DiskSpec::qcow2(32 * MIB).noise(6 * MIB).make(&image, Some("traveller"));
    let seed = VmSeed::new("traveller")
        .disk(DiskSeed::of(&image, Format::Qcow2))
        .nic("00:50:56:00:00:01", "vmxnet3", "VM Network")
        .addresses(&["2001:db8::17", "192.0.2.17", "fe80::250:56ff:fe00:1"]);
    vsphere.seed(&seed.running());
    let mut crossing = lab.crossing("traveller").by(&place);
    crossing.providers = vec![
        ("a".to_owned(), vsphere.provider()),
        ("b".to_owned(), proxmox.provider()),
    ];
    let crossing = crossing
        .secret("a", vsphere.secret().unwrap())
        .secret("b", proxmox.secret().unwrap())
        .set("targetNetworkHints", json!([proxmox.network()]));
    let mut ran = lab.ferry.start(&crossing);
    ran.await_record("m", "ready", LIMIT, |record| record.phase() == "Ready");

    let told = await_status(&lab, "VirtualMachine", "traveller", |status| !status["ips"].is_null());
    assert_eq!(told["ips"], json!(["192.0.2.17", "2001:db8::17"]));
    assert_eq!(told["id"], vsphere.state().vm("traveller").unwrap().id);
    assert_eq!(condition(&told, "Ready"), Some(("True", "VMFound")));
    // What the agent of the kit says, without the loopback's.
    let told = await_status(&lab, "VirtualMachine", "arrived", |status| !status["ips"].is_null());
    assert_eq!(
        (&told["ips"], &told["powerState"]),
        (&json!(["192.0.2.10"]), &json!("On"))
    );

    vsphere.pull_plug("traveller");
    let told = await_status(&lab, "VirtualMachine", "traveller", |status| {
        status["powerState"] == "Off"
    });
    assert_eq!(told["ips"], Value::Null);
    ran.end().ready();
}
