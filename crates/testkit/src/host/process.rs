//! The processes of a host: `scripts/host.sh` holds them all, and ends with the pipe to it.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::Must;
use crate::host::Kind;
use crate::wait::poll;

/// The script that makes a host, within the checkout.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/host.sh");

/// The port of unencrypted libvirt.
const TCP_PORT: u16 = 16509;

#[derive(Debug)]
pub(super) struct HostProcess {
    dir: PathBuf,
    address: Ipv4Addr,
    /// Its standard input is the lifeline: closed, the host ends.
    script: Child,
}

impl HostProcess {
    pub(super) fn start(kind: Kind) -> Self {
        let (dir, address) = (unused_dir(), unused_address());
        let log = dir.with_extension("log");
        let mut command = Command::new(SCRIPT);
        match kind {
            Kind::Session => command.arg("session").arg(&dir),
            Kind::System => command.arg("system").arg(&dir).arg(address.to_string()),
        };
        let errors = File::create(&log).must(format!("make {}", log.display()));
        // A process group of its own: a signal to the test's group must not keep the script from cleaning up.
        let script = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .must(format!("run {SCRIPT}"));
        let mut host = Self { dir, address, script };
        let ready = host.await_ready();
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        assert!(
            ready,
            "the libvirt host in {} did not come up: {said}",
            host.dir.display()
        );
        host
    }

    fn await_ready(&mut self) -> bool {
        let ready = self.dir.join("ready");
        let outcome = poll(Duration::from_mins(1), || {
            if ready.exists() {
                return Some(true);
            }
            let ended = !matches!(self.script.try_wait(), Ok(None));
            ended.then_some(false)
        });
        outcome == Some(true)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Kills the init of the host's pid namespace and with it all of its processes.
    pub(super) fn kill(&mut self) {
        for pid in self.pids("host-init.sh") {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let gone = poll(Duration::from_secs(10), || self.list().is_empty().then_some(()));
        assert!(gone.is_some(), "the host in {} does not die", self.dir.display());
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.scan().into_iter().map(|(_, line)| line).collect()
    }

    pub(super) fn pids(&self, text: &str) -> Vec<u32> {
        self.scan()
            .into_iter()
            .filter(|(_, line)| line.contains(text))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// All processes in the host's pid namespace: pid as seen from here, command line.
    fn scan(&self) -> Vec<(u32, String)> {
        let Ok(namespace) = fs::read_to_string(self.dir.join("pid-namespace")) else {
            return Vec::new();
        };
        let entries = fs::read_dir("/proc").must("list /proc");
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.as_os_str() == namespace.trim())
            })
            .filter_map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline"))
                    .ok()
                    .filter(|line| !line.is_empty())?;
                Some((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()))
            })
            .collect()
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let ended = poll(Duration::from_secs(20), || self.script.try_wait().transpose());
        if ended.is_none() {
            // Something is wrong with the script; the namespace dies with its `unshare`.
            let _ = self.script.kill();
            let _ = self.script.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A path that does not exist, short enough for the sockets below it.
fn unused_dir() -> PathBuf {
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > 20 {
        Path::new("/tmp")
    } else {
        base.as_path()
    };
    base.join(format!("vf-{:08x}", random() & 0xffff_ffff))
}

/// An address in 127/8 on which nobody listens; every host has its own, so that tests can run at once.
fn unused_address() -> Ipv4Addr {
    let free = (0..100)
        .map(|_| candidate_address())
        .find(|ip| TcpListener::bind((*ip, TCP_PORT)).is_ok());
    free.must("find a free loopback address")
}

fn candidate_address() -> Ipv4Addr {
    let [_, b, c, d] = ((random() & 0x00ff_ffff) as u32).to_be_bytes();
    Ipv4Addr::new(127, b, c, d.clamp(2, 250))
}

/// The standard library's hasher keys come from the system's random source.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
