//! A process of the binary.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;
use vmferry_testkit::poll;

/// How long a run may take in a debug build while other tests run, in seconds. `VMFERRY_TEST_LIMIT` says otherwise where there is much to move.
const LIMIT: u64 = 150;

/// How long a run may take.
pub fn limit() -> Duration {
    let set = std::env::var("VMFERRY_TEST_LIMIT").ok();
    Duration::from_secs(set.and_then(|seconds| seconds.parse().ok()).unwrap_or(LIMIT))
}

/// `vmferry`, and what it says. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: NamedTempFile,
}

impl Process {
    /// Starts it with these arguments; its log is in a folder.
    pub fn start(args: &[String], environment: &[(&str, &str)], folder: &Path) -> Self {
        let log = NamedTempFile::new_in(folder).unwrap();
        // A process group of its own: whatever is left in it when the run has ended was left behind.
        let child = Command::new(env!("CARGO_BIN_EXE_vmferry"))
            .args(args)
            .env("RUST_BACKTRACE", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.as_file().try_clone().unwrap())
            .stderr(log.as_file().try_clone().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Waits for its end, and that it leaves no process behind.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let Some(status) = poll(limit(), || self.status()) else {
            self.kill();
            panic!("vmferry did not end in {:?}. It said:\n{}", limit(), self.text());
        };
        let left = poll(Duration::from_secs(5), || group_is_empty(self.pid()).then_some(()));
        assert!(left.is_some(), "processes of vmferry are left in group {}", self.pid());
        status
    }

    /// How it ended; none while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn text(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        vmferry_testkit::run(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether no process is in a process group.
fn group_is_empty(group: u32) -> bool {
    let group = group.to_string();
    let of_group = |stat: String| {
        // After the command in parentheses: state, parent, group.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.split(' ').nth(2) == Some(&group))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    !processes
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .any(of_group)
}
