//! VMs that cross: running and shut off, one disk and two, raw and qcow2, with backing files, on any bus.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use vmferry_testkit::{Bus, Counters, DiskSpec, Format, GuestSpec, Host, MIB, NicSpec, image, run, wait_for};

use crate::support::{Ferry, Lab};

#[test]
fn a_running_vm_crosses_and_runs_on() {
    let lab = Lab::session();
    let spec = GuestSpec::micro("traveller")
        .disk(DiskSpec::qcow2(64 * MIB).noise(24 * MIB))
        .nic(NicSpec::user("52:54:00:aa:bb:cc"));
    let source = lab.board(&spec);
    let (before, run_id) = (lab.look(), source.run_id());

    lab.ferry.run(&lab.crossing("traveller")).ready();

    let arrival = lab.assert_only_arrived(&before);
    assert_eq!(source.run_id(), run_id, "the source ran all the time");
    let record = lab.ferry.record("m");
    assert_eq!(
        (record.phase().as_str(), record.status("progress").as_str()),
        ("Ready", "100")
    );
    for condition in [
        "Validated",
        "Snapshotted",
        "Exported",
        "Transferred",
        "Converted",
        "Imported",
        "Created",
        "Ready",
    ] {
        assert!(
            record.holds(condition),
            "{condition}: {:?}",
            record.condition(condition)
        );
    }
    assert!(
        record.status("checksum").starts_with("sha256:"),
        "{}",
        record.status("checksum")
    );

    let xml = arrival.guest.xml();
    let (first, second) = (
        xml.find("52:54:00:12:34:56").unwrap(),
        xml.find("52:54:00:aa:bb:cc").unwrap(),
    );
    assert!(first < second, "the NICs keep their MACs and their order");
    let counters = arrival.assert_booted(&source);
    assert!(counters.a > 0);
    image::assert_sound(&arrival.guest.disks[0].0);
    let later = source.counters().a;
    wait_for("the source to count on", Duration::from_secs(10), || {
        (source.counters().a > later).then_some(())
    });
}

#[test]
fn a_vm_that_is_shut_off_crosses_and_stays_off() {
    let lab = Lab::session();
    let source = lab
        .a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(64 * MIB).noise(8 * MIB)));
    let before = lab.look();

    lab.ferry.run(&lab.crossing("traveller")).ready();

    let arrival = lab.assert_only_arrived(&before);
    assert_eq!(
        (source.state().as_str(), arrival.guest.state().as_str()),
        ("shut off", "shut off")
    );
    let (from, to) = (&source.disks[0], &arrival.guest.disks[0]);
    image::assert_same(&from.0, from.1, &to.0, to.1);
    image::assert_sound(&to.0);
    lab.b.virsh(["start", "arrived"]);
    arrival.assert_booted(&source);
}

#[test]
fn two_disks_cross_as_of_one_instant_and_in_order() {
    let lab = Lab::session();
    let spec = GuestSpec::micro("traveller")
        .disk(DiskSpec::qcow2(32 * MIB).noise(8 * MIB))
        .disk(DiskSpec::raw(24 * MIB).noise(4 * MIB));
    let source = lab.board(&spec);
    let before = lab.look();

    lab.ferry
        .run(&lab.crossing("traveller").set("targetDiskFormat", json!("raw")))
        .ready();

    let arrival = lab.assert_only_arrived(&before);
    let disks = &arrival.guest.disks;
    assert_eq!(disks.len(), 2);
    let counters = arrival.assert_booted(&source);
    counters.assert_consistent_with(Counters::read_second_disk(&disks[1].0, disks[1].1));
    let record = lab.ferry.record("m");
    assert_eq!(record.0["status"]["disks"].as_array().map(Vec::len), Some(2));
}

#[test]
fn raw_and_qcow2_cross_into_raw_and_qcow2() {
    let lab = Lab::session();
    for (index, (from, to)) in [
        (Format::Raw, Format::Raw),
        (Format::Raw, Format::Qcow2),
        (Format::Qcow2, Format::Raw),
        (Format::Qcow2, Format::Qcow2),
    ]
    .into_iter()
    .enumerate()
    {
        for running in [false, true] {
            let name = format!("t{index}-{running}");
            let spec = GuestSpec::micro(&name).disk(DiskSpec::new(from, 32 * MIB).noise(6 * MIB));
            let source = if running { lab.board(&spec) } else { lab.a.define(&spec) };
            let before = lab.look();
            let target = format!("{name}-arrived");
            let crossing = lab
                .crossing_as(&name, &name, &target)
                .set("targetDiskFormat", json!(to.name()));
            lab.ferry.run(&crossing).ready();

            let arrival = lab.assert_arrived_and(&before, &[&target], &[]);
            assert_eq!(arrival.guest.disks[0].1, to, "{name}");
            if running {
                arrival.assert_booted(&source);
                source.destroy();
            } else {
                let (left, right) = (&source.disks[0], &arrival.guest.disks[0]);
                image::assert_same(&left.0, left.1, &right.0, right.1);
            }
        }
    }
}

#[test]
fn a_backing_chain_crosses_as_one_image() {
    let lab = Lab::session();
    for running in [false, true] {
        let name = format!("chain-{running}");
        let disk = DiskSpec::qcow2(32 * MIB)
            .noise(4 * MIB)
            .backing(&[Format::Raw, Format::Qcow2]);
        let spec = GuestSpec::micro(&name).disk(disk);
        let source = if running { lab.board(&spec) } else { lab.a.define(&spec) };
        let before = lab.look();
        let target = format!("{name}-arrived");
        lab.ferry.run(&lab.crossing_as(&name, &name, &target)).ready();

        let arrival = lab.assert_arrived_and(&before, &[&target], &[]);
        let (path, format) = &arrival.guest.disks[0];
        assert!(
            !image::info(path).contains("backing-filename"),
            "the target stands alone"
        );
        for layer in 0..3_u8 {
            image::assert_pattern(path, *format, 4 * MIB + u64::from(layer) * 65536, 65536, layer + 1);
        }
        if running {
            arrival.assert_booted(&source);
        } else {
            image::assert_same(&source.disks[0].0, source.disks[0].1, path, *format);
        }
    }
}

#[test]
fn disks_keep_their_bus() {
    let lab = Lab::session();
    for bus in [Bus::Scsi, Bus::Sata, Bus::Ide] {
        let source = lab.board(&GuestSpec::micro(bus.name()).disk(DiskSpec::qcow2(16 * MIB).bus(bus)));
        let before = lab.look();
        let target = format!("{}-arrived", bus.name());
        lab.ferry.run(&lab.crossing_as(bus.name(), bus.name(), &target)).ready();

        let arrival = lab.assert_arrived_and(&before, &[&target], &[]);
        assert!(
            arrival.guest.xml().contains(&format!("bus='{}'", bus.name())),
            "{}",
            arrival.guest.xml()
        );
        arrival.assert_booted(&source);
        source.destroy();
    }
}

#[test]
fn a_linux_guest_crosses_and_boots_from_its_own_disk() {
    let (a, b) = (Host::system("a"), Host::system("b"));
    let lab = Lab {
        a,
        b,
        ferry: Ferry::new(),
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/guest.sh");
    let raw = lab.ferry.path().join("linux.raw");
    run(Command::new(script).arg(&raw).args(["160", "linux-e2e", "16"]));
    let disk = lab.a.pool_dir().join("linux.qcow2");
    image::convert(&raw, Format::Raw, &disk, Format::Qcow2);
    let mut spec = GuestSpec::micro("linux").disk(DiskSpec::existing(&disk, Format::Qcow2));
    spec.memory_mib = 256;
    lab.a.define(&spec);
    lab.a.virsh(["start", "linux"]);
    let limit = Duration::from_mins(2);
    lab.a
        .console_line("linux", "GUEST-BOOT marker=linux-e2e boots=1 ", limit);
    let before = lab.look();

    lab.ferry
        .run(&lab.crossing("linux").ssh("a", &lab.a).ssh("b", &lab.b))
        .ready();

    lab.assert_only_arrived(&before);
    let line = lab
        .b
        .console_line("arrived", "GUEST-BOOT marker=linux-e2e boots=2 ", limit);
    assert!(line.contains("root=/dev/vda2"), "{line}");
}
