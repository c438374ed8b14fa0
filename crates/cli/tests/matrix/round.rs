//! Once around: what leaves libvirt comes back by Proxmox VE and vSphere, and boots.

use crate::journey::{crossing, digests};
use crate::side::{Kind, Seed, Side, start};
use crate::support::{Ferry, Place};
use vmferry_testkit::{DiskSpec, Host, MIB};

#[test]
fn a_guest_comes_home_and_boots() {
    let (home, there) = (Host::session("a"), start(Kind::Proxmox, "p"));
    let (beyond, back) = (start(Kind::Vsphere, "v"), Host::session("b"));
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskSpec::qcow2(64 * MIB).noise(20 * MIB);
    let image = folder.path().join("traveller-0.qcow2");
    disk.make(&image, Some("traveller"));
    Side::seed(
        &home,
        &Seed {
            name: "traveller".to_owned(),
            disks: vec![(image, disk.format)],
            mac: None,
            running: false,
        },
    );
    let stops: [(&str, &dyn Side); 4] = [
        ("traveller", &home),
        ("first-stop", &*there),
        ("second-stop", &*beyond),
        ("home", &back),
    ];
    let places = [Place::s3(), Place::nfs4(), Place::apache()];
    let ferry = Ferry::new();
    let mut seen = Vec::new();
    for (index, (hop, place)) in stops.windows(2).zip(&places).enumerate() {
        let name = format!("hop-{index}");
        ferry.run(&crossing(&name, hop[0], hop[1], place)).ready();
        assert_eq!(place.everything(), Vec::<String>::new());
        seen.push(digests(&ferry.record(&name)));
    }
    assert!(seen.iter().all(|digests| *digests == seen[0]), "{seen:?}");
    for (_, stop) in stops {
        stop.assert_proper();
    }
    back.virsh(["start", "home"]);
    let mut guest = back.guest("home");
    "traveller".clone_into(&mut guest.marker);
    assert_eq!(guest.await_greeting(), 1, "it boots for the first time");
}
