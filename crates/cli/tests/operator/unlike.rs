//! Between hypervisors of different kinds, by Jobs on a cluster: what a worker needs for each of them gets to it.

use serde_json::json;
use vmferry_testkit::{DiskSpec, GuestSpec, MIB, image};

use crate::side::{Kind, Side, start};
use crate::support::{Crossing, Lab, Place};

/// A VM of libvirt host `a` that is shut off arrives at a target of this kind.
#[track_caller]
fn arrives(kind: Kind) {
    let (lab, to, place) = (Lab::session(), start(kind, "t"), Place::s3());
    let source = lab
        .a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(32 * MIB).noise(6 * MIB)));
    let before = (lab.look(), to.everything());
    let crossing = bound_for(&*to, lab.crossing("traveller").by(&place));
    lab.ferry.run(&crossing).ready();

    let disks = to.disks("arrived");
    assert_eq!(disks.len(), 1);
    let (from, there) = (&source.disks[0], &disks[0]);
    image::assert_same(&from.0, from.1, &there.0, there.1);
    assert_eq!(to.found("arrived").macs, ["52:54:00:12:34:56"]);
    let names = to.names("arrived");
    let mut left = to.everything();
    left.retain(|line| before.1.contains(line) || !names.iter().any(|name| line.contains(name)));
    assert_eq!(left, before.1);
    assert_eq!(place.everything(), Vec::<String>::new());
    to.assert_proper();
    lab.assert_nothing_left(&before.0);
    let hidden = to.hidden().unwrap();
    assert!(
        !lab.ferry.saved().iter().any(|text| text.contains(&hidden)),
        "a secret shows"
    );
}

fn bound_for(to: &dyn Side, mut crossing: Crossing) -> Crossing {
    for (name, spec) in &mut crossing.providers {
        if name == "b" {
            *spec = to.provider();
        }
    }
    crossing
        .secret("b", to.secret().unwrap())
        .set("targetNetworkHints", json!([to.network()]))
}

#[test]
fn a_vm_arrives_at_vsphere() {
    arrives(Kind::Vsphere);
}

#[test]
fn a_vm_arrives_at_proxmox() {
    arrives(Kind::Proxmox);
}
