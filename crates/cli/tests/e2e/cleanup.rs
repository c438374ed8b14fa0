//! The three flags of the cleanup policy, both ways.

use serde_json::json;
use vmferry_testkit::{DiskSpec, Format, GuestSpec, MIB, files_below, image};

use crate::support::Lab;

#[test]
fn staged_objects_stay_when_they_are_to_and_are_ordinary_images() {
    let lab = Lab::session();
    let source = lab
        .a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(32 * MIB).noise(6 * MIB)));
    let before = lab.look();
    let crossing = lab
        .crossing("traveller")
        .set("cleanupPolicy", json!({ "deleteIntermediate": false }));
    lab.ferry.run(&crossing).ready();

    let staged = format!("folder {}", lab.ferry.staging().display());
    lab.assert_arrived_and(&before, &["arrived"], &[&staged]);
    let record = lab.ferry.record("m");
    let url = record.status("intermediateStorageURL");
    let path = url.strip_prefix("nfs://").unwrap_or(&url);
    assert!(image::info(path.as_ref()).contains("\"format\": \"qcow2\""), "{url}");
    image::assert_same(&source.disks[0].0, source.disks[0].1, path.as_ref(), Format::Qcow2);
    let sum = vmferry_testkit::run(std::process::Command::new("sha256sum").arg(path));
    assert_eq!(
        record.status("checksum"),
        format!("sha256:{}", sum.split(' ').next().unwrap())
    );
    let files = files_below(&lab.ferry.staging());
    assert_eq!(
        files.len(),
        1,
        "the object, and neither notes nor half-made files: {files:?}"
    );
}

#[test]
fn a_snapshot_stays_when_it_is_to() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));
    let before = lab.look();
    let crossing = lab
        .crossing("traveller")
        .set("cleanupPolicy", json!({ "deleteSnapshot": false }));
    lab.ferry.run(&crossing).ready();

    let snapshots = lab.a.virsh(["checkpoint-list", "traveller", "--name"]);
    let snapshot = snapshots.trim();
    assert_eq!(
        snapshots.lines().filter(|line| !line.is_empty()).count(),
        1,
        "{snapshots}"
    );
    assert!(
        lab.ferry.record("m").status("snapshotId").contains(snapshot),
        "{snapshot}"
    );
    let own_record = format!("a file home/libvirt/qemu/checkpoint/traveller/{snapshot}.xml");
    let kept = [
        format!("a checkpoint traveller {snapshot}"),
        format!("a bitmap pool/traveller-0.qcow2 {snapshot}"),
    ];
    lab.assert_arrived_and(&before, &["arrived"], &[&kept[0], &kept[1], &own_record]);
}

#[test]
fn the_source_goes_when_it_is_to_after_the_target_stands() {
    for running in [true, false] {
        let lab = Lab::session();
        let spec = GuestSpec::small("traveller").disk(DiskSpec::raw(16 * MIB));
        let source = if running { lab.board(&spec) } else { lab.a.define(&spec) };
        let boots = source.boots();
        lab.a.define(&GuestSpec::small("bystander"));
        let before = lab.look();
        let crossing = lab
            .crossing("traveller")
            .set("cleanupPolicy", json!({ "deleteSource": true }));
        lab.ferry.run(&crossing).ready();

        let gone = [
            "a domain traveller ",
            "a config traveller ",
            "a disk traveller ",
            "a process qemu-system-x86_64 guest=traveller",
            "a volume default traveller-",
            "a file pool/traveller-",
        ];
        let arrival = lab.assert_arrived_and(&before, &["arrived"], &gone);
        assert!(!lab.a.virsh(["list", "--all", "--name"]).contains("traveller"));
        assert!(
            files_below(&lab.a.pool_dir())
                .iter()
                .all(|path| !path.to_string_lossy().contains("traveller")),
            "its disks are gone"
        );
        if running {
            let marker = "GUEST-BOOT marker=traveller-marker boots=0x";
            let line = lab.b.console_line("arrived", marker, std::time::Duration::from_mins(1));
            assert!(line.ends_with(&format!("{:08X}", boots + 1)), "{line}");
        }
        assert_eq!(arrival.guest.disks.len(), 2);
    }
}
