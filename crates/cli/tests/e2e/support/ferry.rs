//! Runs of the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vmferry_testkit::{files_below, poll};

use super::process::{Process, limit};
use super::{Crossing, Outcome, Record};

/// Where a run works: manifests, state and staging, each test its own.
#[derive(Debug)]
pub struct Ferry {
    dir: TempDir,
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
        self.find(name)
            .unwrap_or_else(|| panic!("there is no record of {name}"))
    }

    /// A migration as it was last saved; none where there is none.
    pub fn find(&self, name: &str) -> Option<Record> {
        read(&self.state(), name)
    }

    /// Why a migration was not validated.
    pub fn why(record: &Record) -> String {
        let condition = record.condition("Validated").unwrap();
        condition["reason"].as_str().unwrap().to_owned()
    }

    /// All that was saved, as text.
    pub fn saved(&self) -> Vec<String> {
        let files = files_below(&self.state());
        let texts = files.iter().map(|path| fs::read(path).unwrap());
        texts
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    fn spawn(&self, args: &[String]) -> Ran {
        Ran {
            process: Process::start(args, &[], self.path()),
            state: self.state(),
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Ran {
    process: Process,
    state: PathBuf,
}

impl Ran {
    /// Waits for its end, and that it leaves no process behind.
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let status = self.process.end();
        Outcome {
            code: status.code().unwrap_or(-1),
            text: self.text(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.process.status().is_none()
    }

    /// What it has said so far.
    pub fn text(&self) -> String {
        self.process.text()
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
            let record = read(&self.state, name).filter(|record| wanted(record));
            record.or_else(|| self.process.status().map(|_| Record(Value::Null)))
        });
        match found {
            Some(record) if !record.0.is_null() => record,
            _ => panic!("{name} was never {what}. vmferry said:\n{}", self.text()),
        }
    }

    /// Kills it with SIGKILL as soon as the record of a migration is in this phase. False where it ended or passed on before.
    pub fn kill_in(mut self, name: &str, phase: &str) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit() && self.is_running() {
            if read(&self.state, name).is_some_and(|record| record.phase() == phase) {
                self.kill();
                // What is durable when it died is what counts.
                return read(&self.state, name).is_some_and(|record| record.phase() == phase && !record.is_over());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.kill();
        false
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }
}

/// What the state directory says of a migration; none while it says nothing.
fn read(state: &Path, name: &str) -> Option<Record> {
    files_below(&state.join("migrations")).iter().find_map(|file| {
        // A file that is being replaced is there under a hidden name as well, and that one does not count yet.
        let name_of_file = file.file_name()?.to_str()?;
        if name_of_file.starts_with('.') {
            return None;
        }
        let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (value["migration"]["metadata"]["name"] == name).then(|| Record(value["migration"].clone()))
    })
}
