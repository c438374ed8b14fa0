//! The processes of a host: `scripts/host.sh` holds them all, and ends with the pipe to it.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
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
    /// A daemon that is not the first one, and how the first one was started.
    daemon: Mutex<Option<Daemon>>,
}

/// The daemon: its words, its environment, and the process that holds it where it was started again.
#[derive(Debug)]
struct Daemon {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    child: Option<Child>,
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
        let mut host = Self {
            dir,
            address,
            script,
            daemon: Mutex::default(),
        };
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
        self.pids("host-init.sh").into_iter().for_each(signal_kill);
        let gone = poll(Duration::from_secs(10), || self.list().is_empty().then_some(()));
        assert!(gone.is_some(), "the host in {} does not die", self.dir.display());
    }

    /// Kills the daemon and keeps how it was started.
    pub(super) fn kill_daemon(&self) {
        let pid = *self.pids("libvirtd").first().must("find the daemon");
        let parts = |file: &str| -> Vec<OsString> {
            let text = fs::read(format!("/proc/{pid}/{file}")).must(format!("read {file} of the daemon"));
            let parts = text.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
        };
        let variable = |part: OsString| {
            let at = part.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = part.as_bytes().split_at(at);
            Some((
                OsStr::from_bytes(name).to_owned(),
                OsStr::from_bytes(&value[1..]).to_owned(),
            ))
        };
        let daemon = Daemon {
            words: parts("cmdline"),
            environment: parts("environ").into_iter().filter_map(variable).collect(),
            child: None,
        };
        signal_kill(pid);
        let gone = poll(Duration::from_secs(10), || {
            self.pids("libvirtd").is_empty().then_some(())
        });
        assert!(gone.is_some(), "the daemon in {} does not die", self.dir.display());
        let mut place = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = place.replace(daemon).and_then(|old| old.child) {
            let _ = child.wait();
        }
    }

    /// Starts the daemon that was killed as it was started before, among the host's processes.
    pub(super) fn start_daemon(&self, kind: Kind) {
        let init = *self.pids("host-init.sh").first().must("find the host's init");
        let mut place = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = place.as_mut().must("start a daemon that was killed");
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.dir.join("log/libvirtd"));
        let log = log.must("open the daemon's log");
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &init.to_string(), "--"]);
        if kind == Kind::Session && rustix::process::geteuid().is_root() {
            command.args(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]);
        }
        let child = command
            .args(&daemon.words)
            .env_clear()
            .envs(daemon.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().must("share the daemon's log"))
            .stderr(log)
            .process_group(0)
            .spawn();
        daemon.child = Some(child.must("start the daemon again"));
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
        let daemon = self.daemon.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = daemon.and_then(|daemon| daemon.child) {
            // The namespace is gone, and with it the daemon.
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn signal_kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
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
