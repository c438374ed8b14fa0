//! What a run may use: memory that does not grow with the disk, and no file but the state, the staged object and the volume.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmferry_testkit::{DiskSpec, GuestSpec, MIB};

use crate::support::{Crossing, Lab, Ran};

/// The most memory that a run may have had, in KiB.
const MEMORY: u64 = 200 * 1024;

#[test]
fn a_large_sparse_disk_needs_no_more_memory_than_a_small_one() {
    for size in [1024 * MIB, 20 * 1024 * MIB] {
        let lab = Lab::session();
        lab.a
            .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(size).noise(256 * MIB)));
        let before = lab.look();
        let mut run = lab.ferry.start(&lab.crossing("traveller"));

        let peak = watch(&mut run, |run| peak_memory(run.pid())).max().unwrap();

        run.end().ready();
        lab.assert_only_arrived(&before);
        assert!(peak > 1024, "the memory was never seen: {peak} KiB");
        assert!(
            peak <= MEMORY,
            "a disk of {} MiB took {} MiB of memory",
            size / MIB,
            peak / 1024
        );
    }
}

#[test]
fn nothing_is_written_but_the_state_the_object_and_the_volume() {
    let lab = Lab::session();
    lab.a
        .define(&GuestSpec::micro("traveller").disk(DiskSpec::qcow2(512 * MIB).noise(256 * MIB)));
    let before = lab.look();
    let mut run = lab.ferry.start(&lab.crossing("traveller"));

    let mut written: Vec<PathBuf> = watch(&mut run, |run| files_written(run.pid())).flatten().collect();

    run.end().ready();
    let arrival = lab.assert_only_arrived(&before);
    written.sort();
    written.dedup();
    let (volume, _) = &arrival.guest.disks[0];
    let allowed = [lab.ferry.state(), lab.ferry.staging(), volume.clone()];
    let others: Vec<_> = written
        .iter()
        .filter(|path| !allowed.iter().any(|allowed| path.starts_with(allowed)))
        .collect();
    assert!(others.is_empty(), "vmferry wrote {others:?}");
    assert!(
        written.iter().any(|path| path.starts_with(lab.ferry.staging())),
        "the staged object was never seen: {written:?}"
    );
}

/// Two migrations keep to one rate together.
#[test]
fn all_migrations_together_keep_to_the_limit() {
    let lab = Lab::session();
    let spec = |name: &str| GuestSpec::micro(name).disk(DiskSpec::qcow2(32 * MIB).noise(16 * MIB));
    lab.a.define(&spec("one"));
    lab.a.define(&spec("two"));
    let before = lab.look();
    let [one, two] = [("m-one", "one", "arrived"), ("m-two", "two", "arrived2")]
        .map(|(name, vm, target)| lab.crossing_as(name, vm, target));
    // One of them declares the Providers for both.
    let two = Crossing {
        providers: Vec::new(),
        ..two
    };
    let both = [one, two].map(|crossing| crossing.to_yaml()).concat();
    let manifests = lab.ferry.write("both.yaml", &both);
    let since = Instant::now();
    lab.ferry
        .start_all(&[&manifests], &["--bandwidth-limit", "16MiB"])
        .end()
        .ready();
    // 32 MiB there and 32 MiB back.
    assert!(since.elapsed() > Duration::from_millis(3900), "{:?}", since.elapsed());
    lab.assert_arrived_and(&before, &["arrived", "arrived2"], &[]);
}

/// Looks at a run every few milliseconds until it ends.
fn watch<'r, T>(run: &'r mut Ran, look: impl Fn(&Ran) -> T + 'r) -> impl Iterator<Item = T> + 'r {
    std::iter::from_fn(move || {
        std::thread::sleep(Duration::from_millis(2));
        run.is_running().then(|| look(run))
    })
}

/// The peak of a process's resident memory in KiB; 0 where it is gone.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// Regular files that a process has open for writing, but for its standard streams.
fn files_written(pid: u32) -> Vec<PathBuf> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let numbers = descriptors.flatten().map(|entry| entry.file_name());
    numbers
        .filter(|number| !["0", "1", "2"].iter().any(|standard| number == standard))
        .filter(|number| is_for_writing(&Path::new("/proc").join(pid.to_string()).join("fdinfo").join(number)))
        .filter_map(|number| fs::read_link(Path::new("/proc").join(pid.to_string()).join("fd").join(number)).ok())
        // Sockets, pipes and the like have no path.
        .filter(|path| path.is_absolute() && !path.starts_with("/dev"))
        .collect()
}

/// Whether the flags of a descriptor (octal, as for open(2)) say anything but O_RDONLY.
fn is_for_writing(fdinfo: &Path) -> bool {
    let info = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 0o3 != 0)
}
