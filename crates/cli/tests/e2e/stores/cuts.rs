//! Connections to the staging storage that are cut again and again: nothing is lost, little is sent twice, memory stays flat, and
//! no attempt is used up.
//!
//! The disk has 64 GiB, 192 MiB of which are data. `make soak` does the same with 4 GiB: `VMFERRY_CUTS_MIB` says how much.

use std::fs;
use std::time::Duration;

use vmferry_testkit::{DiskSpec, GuestSpec, MIB, image};

use crate::support::{Lab, Place};

/// Connections that are cut.
const CUTS: u64 = 30;
/// Bytes of a part.
const PART: u64 = 8 * MIB;
/// What the whole process may take, in KiB.
const MEMORY_KIB: u64 = 200 << 10;

fn data() -> u64 {
    let set = std::env::var("VMFERRY_CUTS_MIB").ok();
    set.and_then(|mib| mib.parse::<u64>().ok()).unwrap_or(192) * MIB
}

/// Moves the disk over a storage, and cuts one of its connections at thirty places of the way.
#[track_caller]
fn thirty_cuts(place: &Place) {
    let lab = Lab::session();
    let disk = DiskSpec::qcow2(64 << 30).noise(data());
    let source = lab.a.define(&GuestSpec::micro("traveller").disk(disk));
    let mut ran = lab.ferry.start(&lab.crossing("traveller").by(place));
    // Once there and once back.
    let step = 2 * data() / (CUTS + 1);
    let (mut cut, mut peak) = (0, 0);
    while ran.is_running() {
        if cut < CUTS && place.proxy().passed() > (cut + 1) * step && place.proxy().cut_one(any(cut)) {
            cut += 1;
        }
        peak = peak.max(resident_peak(ran.pid()));
        std::thread::sleep(Duration::from_millis(2));
    }
    ran.end().ready();

    assert_eq!(cut, CUTS, "the way was over before all connections were cut");
    assert!(peak < MEMORY_KIB, "vmferry took {peak} KiB");
    let record = lab.ferry.record("m");
    assert_eq!(record.status("retryAttempts"), "", "a cut connection cost an attempt");
    for (left, arrived) in source.disks.iter().zip(&lab.b.guest("arrived").disks) {
        image::assert_same(&left.0, left.1, &arrived.0, arrived.1);
    }
    if let Some(again) = place.sent_again() {
        assert!(again <= CUTS as usize, "{again} parts were sent twice");
    }
    let most = 2 * data() + CUTS * PART + data() / 50 + 16 * MIB;
    let passed = place.proxy().passed();
    assert!(passed <= most, "{passed} bytes passed, for {} there and back", data());
}

/// Any number, another one for each cut.
fn any(cut: u64) -> usize {
    (cut.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// The most memory that a process had so far, in KiB; 0 where it has ended.
fn resident_peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn over_s3() {
    thirty_cuts(&Place::s3());
}

#[test]
fn over_http() {
    thirty_cuts(&Place::apache());
}

#[test]
fn over_nfs() {
    thirty_cuts(&Place::nfs4());
}
