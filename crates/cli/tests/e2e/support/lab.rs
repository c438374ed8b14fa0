//! Two hosts, a place to work, and the check at the end of every test.

use std::path::Path;

use vmferry_testkit::{Counters, Guest, GuestSpec, Host, World};

use super::{Crossing, Ferry};

/// Two hosts, `a` and `b`, and a place for the runs.
#[derive(Debug)]
pub struct Lab {
    /// Where VMs come from.
    pub a: Host,
    /// Where they go.
    pub b: Host,
    /// Where vmferry works.
    pub ferry: Ferry,
}

/// A VM that arrived.
#[derive(Debug)]
pub struct Arrival<'l> {
    /// The VM on host `b`.
    pub guest: Guest<'l>,
}

impl Lab {
    /// Two session-mode hosts.
    pub fn session() -> Self {
        Self {
            a: Host::session("a"),
            b: Host::session("b"),
            ferry: Ferry::new(),
        }
    }

    /// Two system-mode hosts.
    pub fn system() -> Self {
        Self {
            a: Host::system("a"),
            b: Host::system("b"),
            ferry: Ferry::new(),
        }
    }

    /// The manifests that move a VM of `a` to `b`: migration `m`, target `arrived`.
    pub fn crossing(&self, vm: &str) -> Crossing {
        self.crossing_as("m", vm, "arrived")
    }

    /// The manifests that move a VM of `a` to `b` under these names.
    pub fn crossing_as(&self, name: &str, vm: &str, target: &str) -> Crossing {
        Crossing::new(
            name,
            vm,
            target,
            &self.a,
            &self.b,
            &self.ferry.staging().display().to_string(),
        )
    }

    /// Everything that there is.
    pub fn look(&self) -> World {
        World::of(&[&self.a, &self.b], &[&self.ferry.staging()])
    }

    /// Asserts that nothing came and nothing went since `before`.
    #[track_caller]
    pub fn assert_nothing_left(&self, before: &World) {
        before.assert_unchanged(&[&self.a, &self.b], &[&self.ferry.staging()]);
    }

    /// Asserts that nothing came but the VM `arrived` and its disks, and nothing went.
    #[track_caller]
    pub fn assert_only_arrived(&self, before: &World) -> Arrival<'_> {
        self.assert_arrived_and(before, &["arrived"], &[])
    }

    /// Asserts that nothing came or went but these VMs on `b` with their disks, and lines with one of `other`. Gives the
    /// first VM.
    #[track_caller]
    pub fn assert_arrived_and(&self, before: &World, names: &[&str], other: &[&str]) -> Arrival<'_> {
        let mut expected: Vec<String> = other.iter().map(ToString::to_string).collect();
        for name in names {
            for what in ["domain", "config", "disk"] {
                expected.push(format!("b {what} {name} "));
            }
            expected.push(format!("b process qemu-system-x86_64 guest={name}"));
            for (path, _) in &self.b.guest(name).disks {
                let file = file_name(path);
                let folder = path.parent().map(file_name).unwrap_or_default();
                expected.push(format!("b file {folder}/{file}"));
                expected.push(format!("b volume default {file}"));
            }
        }
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        before.assert_unchanged_but(&[&self.a, &self.b], &[&self.ferry.staging()], &expected);
        Arrival {
            guest: self.b.guest(names[0]),
        }
    }

    /// Starts a micro guest on `a` that runs all through a crossing.
    #[track_caller]
    pub fn board(&self, spec: &GuestSpec) -> Guest<'_> {
        self.a.boot(spec)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Arrival<'_> {
    /// Asserts that the VM runs, and that it is the guest of `source`, booted once more. It is stopped, and its disks hold one
    /// point in time.
    #[track_caller]
    pub fn assert_booted(&self, source: &Guest<'_>) -> Counters {
        assert_eq!(self.guest.state(), "running");
        let mut guest = self.guest.clone();
        guest.marker.clone_from(&source.marker);
        let boots = guest.await_greeting();
        assert_eq!(boots, source.boots() + 1, "the target's boots follow the source's");
        guest.destroy();
        let counters = guest.counters();
        counters.assert_consistent();
        counters
    }
}
