//! Runs of the binary.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmferry_testkit::poll;

use super::{Crossing, Record};

/// How long a run may take in a debug build while other tests run, in seconds. `VMFERRY_TEST_LIMIT` says otherwise where there is much to move.
const LIMIT: u64 = 150;

fn limit() -> Duration {
    let set = std::env::var("VMFERRY_TEST_LIMIT").ok();
    Duration::from_secs(set.and_then(|seconds| seconds.parse().ok()).unwrap_or(LIMIT))
}

/// Where a run works: manifests, state and staging, each test its own.
#[derive(Debug)]
pub struct Ferry {
    dir: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output and standard error.
    pub text: String,
}

impl Ferry {
    /// A new place.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("staging")).unwrap();
        Self { dir }
    }

    /// The staging storage.
    pub fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A folder for anything else.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes manifests to a file of that name and gives its path.
    pub fn write(&self, name: &str, manifests: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, manifests).unwrap();
        path
    }

    /// Starts `vmferry run` on a crossing.
    pub fn start(&self, crossing: &Crossing) -> Ran {
        let manifests = self.write(&format!("{}.yaml", crossing.name), &crossing.to_yaml());
        self.start_files(&[&manifests])
    }

    /// Starts `vmferry run` on a crossing with more arguments.
    pub fn start_with(&self, crossing: &Crossing, more: &[&str]) -> Ran {
        let manifests = self.write(&format!("{}.yaml", crossing.name), &crossing.to_yaml());
        self.start_all(&[&manifests], more)
    }

    /// Starts `vmferry run` on files.
    pub fn start_files(&self, files: &[&Path]) -> Ran {
        self.start_all(files, &[])
    }

    /// Starts `vmferry run` on files with more arguments.
    pub fn start_all(&self, files: &[&Path], more: &[&str]) -> Ran {
        let mut args = vec!["run".to_owned(), "--verify".to_owned(), "readback".to_owned()];
        args.extend([
            "--timeout".to_owned(),
            format!("{}s", limit().as_secs() * 4 / 5),
            "--state".to_owned(),
            self.state().display().to_string(),
        ]);
        for file in files {
            args.extend(["-f".to_owned(), file.display().to_string()]);
        }
        args.extend(more.iter().map(ToString::to_string));
        self.spawn(&args)
    }

    /// Runs `vmferry run` on a crossing to its end.
    #[track_caller]
    pub fn run(&self, crossing: &Crossing) -> Outcome {
        self.start(crossing).end()
    }

    /// Runs any other command on the state directory to its end: `ferry.command(&["delete", "m"])`.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Outcome {
        let mut args: Vec<_> = args.iter().map(ToString::to_string).collect();
        args.extend(["--state".to_owned(), self.state().display().to_string()]);
        self.spawn(&args).end()
    }

    /// A migration as it was last saved.
    #[track_caller]
    pub fn record(&self, name: &str) -> Record {
        Record::read(&self.state(), name).unwrap_or_else(|| panic!("there is no record of {name}"))
    }

    fn spawn(&self, args: &[String]) -> Ran {
        let log = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let errors: File = log.as_file().try_clone().unwrap();
        // A process group of its own: whatever is left in it when the run has ended was left behind.
        let child = Command::new(env!("CARGO_BIN_EXE_vmferry"))
            .args(args)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.as_file().try_clone().unwrap())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap();
        Ran {
            child,
            log: log.path().to_owned(),
            state: self.state(),
            _log: log,
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Ran {
    child: Child,
    log: PathBuf,
    state: PathBuf,
    _log: tempfile::NamedTempFile,
}

impl Ran {
    /// Waits for its end, and that it leaves no process behind.
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let status = poll(limit(), || self.child.try_wait().unwrap());
        let text = fs::read_to_string(&self.log).unwrap();
        let Some(status) = status else {
            self.kill();
            panic!("vmferry did not end in {:?}. It said:\n{text}", limit());
        };
        let left = poll(Duration::from_secs(5), || group_is_empty(self.child.id()).then_some(()));
        assert!(
            left.is_some(),
            "processes of vmferry are left in group {}",
            self.child.id()
        );
        Outcome {
            code: status.code().unwrap_or(-1),
            text,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said so far.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the record of a migration is as wanted.
    #[track_caller]
    pub fn await_record(
        &mut self,
        name: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Record) -> bool,
    ) -> Record {
        let found = poll(limit, || {
            let record = Record::read(&self.state, name).filter(|record| wanted(record));
            record.or_else(|| self.child.try_wait().unwrap().map(|_| Record(serde_json::Value::Null)))
        });
        match found {
            Some(record) if !record.0.is_null() => record,
            _ => panic!("{name} was never {what}. vmferry said:\n{}", self.text()),
        }
    }

    /// Kills it with SIGKILL as soon as the record of a migration is in this phase. False where it ended or passed on before.
    pub fn kill_in(mut self, name: &str, phase: &str) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit() && self.child.try_wait().unwrap().is_none() {
            if Record::read(&self.state, name).is_some_and(|record| record.phase() == phase) {
                self.kill();
                // What is durable when it died is what counts.
                return Record::read(&self.state, name)
                    .is_some_and(|record| record.phase() == phase && !is_over(&record));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.kill();
        false
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

impl Drop for Ran {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_over(record: &Record) -> bool {
    !record.status("completionTime").is_empty()
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

impl Outcome {
    /// Asserts that all migrations are Ready.
    #[track_caller]
    pub fn ready(&self) -> &Self {
        assert_eq!(self.code, 0, "vmferry did not end well:\n{}", self.text);
        self
    }

    /// Asserts that it ended with this code and said each of these texts.
    #[track_caller]
    pub fn refused(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, code, "vmferry ended otherwise:\n{}", self.text);
        for text in texts {
            assert!(self.text.contains(text), "vmferry did not say `{text}`:\n{}", self.text);
        }
        assert!(!self.text.contains("panicked"), "vmferry panicked:\n{}", self.text);
        self
    }
}
