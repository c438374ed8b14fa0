//! What the target may be told to have otherwise.

use serde_json::json;
use vmferry_testkit::{DiskSpec, GuestSpec, MIB, NicSpec, image};

use crate::support::Lab;

#[test]
fn cpu_memory_and_a_larger_disk() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::small("traveller").disk(DiskSpec::qcow2(16 * MIB)));
    let before = lab.look();
    let hints = json!({ "cpu": 2, "memory": 96, "disk": 1 });
    lab.ferry
        .run(&lab.crossing("traveller").set("targetResourceHints", hints))
        .ready();

    let arrival = lab.assert_only_arrived(&before);
    let xml = arrival.guest.xml();
    assert!(
        xml.contains(">2</vcpu>") && xml.contains("<memory unit='KiB'>98304</memory>"),
        "{xml}"
    );
    let size = |index: usize| image::info(&arrival.guest.disks[index].0);
    assert!(size(0).contains("\"virtual-size\": 1073741824"), "{}", size(0));
    assert!(
        size(1).contains("\"virtual-size\": 16777216"),
        "only the first disk grows: {}",
        size(1)
    );
    image::assert_sound(&arrival.guest.disks[0].0);
    arrival.assert_booted(&source);
}

#[test]
fn a_disk_grows_at_a_raw_target_too() {
    let lab = Lab::session();
    let source = lab.board(&GuestSpec::small("traveller"));
    let before = lab.look();
    let crossing = lab.crossing("traveller").set("targetDiskFormat", json!("raw"));
    lab.ferry
        .run(&crossing.set("targetResourceHints", json!({ "disk": 1 })))
        .ready();
    let arrival = lab.assert_only_arrived(&before);
    assert_eq!(std::fs::metadata(&arrival.guest.disks[0].0).unwrap().len(), 1 << 30);
    arrival.assert_booted(&source);
}

#[test]
fn networks_by_the_order_of_nics_and_by_their_name() {
    let lab = Lab::system();
    for (name, bridge) in [("lan", "br-lan"), ("dmz", "br-dmz")] {
        let xml = format!("<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>");
        let file = lab.ferry.write(&format!("{name}.xml"), &xml);
        lab.b.virsh(["net-define", &file.display().to_string()]);
        lab.b.virsh(["net-start", name]);
    }
    let spec = GuestSpec::small("traveller")
        .nic(NicSpec::user("52:54:00:00:00:02"))
        .nic(NicSpec::user("52:54:00:00:00:03"));
    lab.a.define(&spec);
    let before = lab.look();
    let hints = json!([
        { "name": "eth1", "bridge": "br-dmz" },
        { "name": "anything", "network": "lan" },
    ]);
    lab.ferry
        .run(&lab.crossing("traveller").set("targetNetworkHints", hints))
        .ready();

    let xml = lab.assert_only_arrived(&before).guest.xml();
    let nics: Vec<_> = xml
        .split("<interface ")
        .skip(1)
        .map(|rest| rest.split("</interface>").next().unwrap())
        .collect();
    let expected = [
        ("52:54:00:12:34:56", "network='lan'"),
        ("52:54:00:00:00:02", "bridge='br-dmz'"),
        ("52:54:00:00:00:03", "type='user'"),
    ];
    assert_eq!(nics.len(), expected.len(), "{xml}");
    for (nic, (mac, attachment)) in nics.iter().zip(expected) {
        assert!(
            nic.contains(mac) && nic.contains(attachment),
            "{nic} is not {mac} at {attachment}"
        );
    }
}

#[test]
fn another_pool() {
    let lab = Lab::session();
    lab.b.add_pool("fast");
    let source = lab.board(&GuestSpec::small("traveller"));
    let before = lab.look();
    lab.ferry
        .run(&lab.crossing("traveller").set("targetStorageHint", json!("fast")))
        .ready();
    let arrival = lab.assert_arrived_and(&before, &["arrived"], &["b volume fast arrived"]);
    assert!(
        arrival.guest.disks[0].0.starts_with(lab.b.dir().join("fast")),
        "{:?}",
        arrival.guest.disks
    );
    arrival.assert_booted(&source);
}

#[test]
fn the_power_state_that_the_virtual_machine_asks_for() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let before = lab.look();
    let mut crossing = lab.crossing("traveller");
    crossing.vm = Some(json!({ "providerRef": { "name": "a" }, "powerState": "Off" }));
    lab.ferry.run(&crossing).ready();
    assert_eq!(lab.assert_only_arrived(&before).guest.state(), "shut off");
}
