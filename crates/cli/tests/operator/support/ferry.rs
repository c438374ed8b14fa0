//! Runs of the controller, as far as the scenarios know them from `vmferry run`: it works on some migrations until all of them
//! are over.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vmferry_testkit::kube::{Cluster, Kind, Kubelet};
use vmferry_testkit::{poll, run, wait_for};

use super::installation::{self, NAMESPACE, WORKER};
use super::process::{Process, limit};
use super::watch::{Seen, Watch};
use super::{Crossing, Outcome, Record};

const API: &str = "infra.virtrigaud.io/v1beta1";
const MIGRATION: Kind<'_> = (API, "VMMigration");
const EVENT: Kind<'_> = ("events.k8s.io/v1", "Event");

/// What the operator makes or writes to in the namespace of a migration.
const WRITTEN: [Kind<'_>; 7] = [
    MIGRATION,
    (API, "VirtualMachine"),
    (API, "Provider"),
    EVENT,
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("coordination.k8s.io/v1", "Lease"),
];

/// Where controllers say how they are, at the cluster's address: the first one, and the others above.
const HEALTH_PORT: u16 = 8081;

/// How long what follows a migration may stay when it is over.
const SETTLE: Duration = Duration::from_secs(20);

/// A cluster with the operator, and staging storage: each test its own.
#[derive(Debug)]
pub struct Ferry {
    // Dropped in this order.
    kubelet: Kubelet,
    watch: Watch,
    cluster: Cluster,
    dir: TempDir,
}

impl Ferry {
    /// A new one.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("staging")).unwrap();
        let cluster = installation::cluster();
        Self {
            kubelet: Kubelet::start(&cluster, env!("CARGO_BIN_EXE_vmferry")),
            watch: Watch::start(&cluster),
            cluster,
            dir,
        }
    }

    /// The staging storage.
    pub fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }

    /// A folder for anything else.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The cluster.
    #[allow(dead_code, reason = "for tests that go past the scenarios")]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Writes manifests to a file of that name and gives its path.
    pub fn write(&self, name: &str, manifests: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, manifests).unwrap();
        path
    }

    /// Applies the manifests of a crossing and starts the controller.
    pub fn start(&self, crossing: &Crossing) -> Ran<'_> {
        self.start_with(crossing, &[])
    }

    /// Applies the manifests of a crossing and starts the controller with more arguments.
    pub fn start_with(&self, crossing: &Crossing, more: &[&str]) -> Ran<'_> {
        let mut ran = self.alone(more);
        ran.apply(&crossing.to_yaml());
        ran
    }

    /// Applies the manifests in files and starts the controller.
    pub fn start_files(&self, files: &[&Path]) -> Ran<'_> {
        let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let mut ran = self.alone(&[]);
        ran.apply(&texts.concat());
        ran
    }

    /// Starts one of several controllers, of which one leads. Each has a number of its own and is called `replica-` and that.
    #[allow(dead_code, reason = "for tests that go past the scenarios")]
    pub fn replica(&self, number: u16) -> Ran<'_> {
        let identity = format!("--identity=replica-{number}");
        self.controller(number, &["--leader-elect=true", &identity])
    }

    /// Applies the manifests of a crossing and runs the controller until it is over.
    #[track_caller]
    pub fn run(&self, crossing: &Crossing) -> Outcome {
        self.start(crossing).end()
    }

    /// What a user of the cluster does in place of another command of the binary.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Outcome {
        match args {
            ["delete", name] => self.delete(name),
            ["describe", name] => self.describe(name),
            _ => panic!("there is nothing like `vmferry {}` on a cluster", args.join(" ")),
        }
    }

    /// A migration as it was last saved.
    #[track_caller]
    pub fn record(&self, name: &str) -> Record {
        self.find(name)
            .unwrap_or_else(|| panic!("there is no record of {name}"))
    }

    /// A migration as it was last saved; none where there is none.
    pub fn find(&self, name: &str) -> Option<Record> {
        self.cluster.get(MIGRATION, "default", name).map(Record)
    }

    /// Why a migration was not validated: the reason itself, or that for which its Provider is not ready, where the controller has
    /// looked at the Provider before.
    pub fn why(record: &Record) -> String {
        let condition = record.condition("Validated").unwrap();
        let (reason, message) = (
            condition["reason"].as_str().unwrap(),
            condition["message"].as_str().unwrap(),
        );
        let of_provider = || message.rsplit_once(" (")?.1.split_once(')').map(|(kind, _)| kind);
        let reason = match reason {
            "ProviderNotReady" => of_provider().unwrap_or(reason),
            _ => reason,
        };
        reason.to_owned()
    }

    /// All that was saved, as text: what anybody may see who may not see Secrets.
    pub fn saved(&self) -> Vec<String> {
        let objects = WRITTEN.iter().flat_map(|kind| self.cluster.list(*kind, "default"));
        let mut texts: Vec<_> = objects.map(|object| object.to_string()).collect();
        texts.push(self.kubelet.logs());
        texts
    }

    /// Kills the process of the worker that runs, as soon as one does, with SIGKILL, and gives its pod's name.
    #[track_caller]
    pub fn kill_worker(&self, limit: Duration) -> String {
        let pod = wait_for("a worker", limit, || self.kubelet.running().into_iter().next());
        run(Command::new("kill").args(["-s", "KILL", &pod.pid.to_string()]));
        pod.name
    }

    /// The names of all workers' pods so far.
    pub fn workers(&self) -> Vec<String> {
        self.kubelet.pods().into_iter().map(|(_, name)| name).collect()
    }

    /// Starts the only controller: one that was killed before would be waited for where they take turns.
    fn alone(&self, more: &[&str]) -> Ran<'_> {
        self.controller(0, &[&["--leader-elect=false"], more].concat())
    }

    /// Starts a controller with the access that it is installed with.
    fn controller(&self, number: u16, more: &[&str]) -> Ran<'_> {
        let (address, _) = self.cluster.address();
        let health = SocketAddr::from((address, HEALTH_PORT + 2 * number));
        let access = installation::controller(&self.cluster);
        let mut args: Vec<_> = [
            "controller",
            "--executor=job",
            "--verify=readback",
            "--worker-image=vmferry",
        ]
        .map(str::to_owned)
        .into();
        args.push(format!("--worker-service-account={WORKER}"));
        args.push(format!("--metrics-addr={address}:{}", health.port() - 1));
        args.push(format!("--health-addr={health}"));
        args.extend(more.iter().map(ToString::to_string));
        let kubeconfig = access.kubeconfig().display().to_string();
        let environment = [("KUBECONFIG", kubeconfig.as_str()), ("POD_NAMESPACE", NAMESPACE)];
        Ran {
            ferry: self,
            seen: self.watch.seen(),
            controller: Process::start(&args, &environment, self.path()),
            health,
            migrations: Vec::new(),
            refusal: None,
            interrupted: false,
        }
    }

    fn delete(&self, name: &str) -> Outcome {
        let mut ran = self.alone(&[]);
        self.cluster.delete(MIGRATION, "default", name);
        let gone = poll(limit(), || self.find(name).is_none().then_some(()));
        let said = ran.controller.text();
        assert!(gone.is_some(), "{name} does not go:\n{said}\n{:?}", self.find(name));
        ran.stop();
        self.assert_no_jobs();
        Outcome { code: 0, text: said }
    }

    fn describe(&self, name: &str) -> Outcome {
        let mut text = self.record(name).0.to_string();
        let events = self.cluster.list(EVENT, "default");
        for event in events.iter().filter(|event| event["regarding"]["name"] == name) {
            let _ = write!(text, "\n{} {}", event["reason"], event["note"]);
        }
        Outcome { code: 0, text }
    }

    /// Asserts that no pod of a worker stays, and no Job.
    #[track_caller]
    fn assert_no_jobs(&self) {
        let mut namespaces: Vec<_> = self
            .kubelet
            .pods()
            .into_iter()
            .map(|(namespace, _)| namespace)
            .collect();
        namespaces.push("default".to_owned());
        namespaces.sort();
        namespaces.dedup();
        let left = || {
            let kinds = [("batch/v1", "Job"), ("v1", "Pod")];
            let of = |namespace: &String| kinds.map(|kind| self.cluster.list(kind, namespace)).concat();
            namespaces.iter().flat_map(of).collect::<Vec<_>>()
        };
        let gone = poll(SETTLE, || left().is_empty().then_some(()));
        assert!(
            gone.is_some(),
            "jobs of migrations that are over are left: {:?}",
            left()
        );
    }
}

/// A controller at work on some migrations.
#[derive(Debug)]
pub struct Ran<'f> {
    ferry: &'f Ferry,
    seen: Seen,
    controller: Process,
    health: SocketAddr,
    migrations: Vec<String>,
    refusal: Option<String>,
    interrupted: bool,
}

impl Ran<'_> {
    /// Waits until the migrations are over, or the controller. Nothing of either is left at work.
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        if let Some(refusal) = self.refusal.take() {
            return Outcome { code: 2, text: refusal };
        }
        let ended = poll(limit(), || {
            (self.controller.status().is_some() || self.are_over()).then_some(())
        });
        assert!(
            ended.is_some(),
            "the migrations are not over in {:?}:\n{}",
            limit(),
            self.text()
        );
        if !self.are_over() {
            let status = self.controller.end();
            // A run that is interrupted has not done what it was to do; a controller has.
            let code = if self.interrupted && status.success() {
                130
            } else {
                status.code().unwrap_or(-1)
            };
            return Outcome {
                code,
                text: self.text(),
            };
        }
        self.ferry.assert_no_jobs();
        self.stop();
        let is_ready = |name: &String| self.seen.get(name).is_some_and(|record| record.phase() == "Ready");
        Outcome {
            code: i32::from(!self.migrations.iter().all(is_ready)),
            text: self.text(),
        }
    }

    /// Applies manifests.
    pub fn apply(&mut self, manifests: &str) {
        for document in manifests.split("---\n").filter(|text| !text.trim().is_empty()) {
            // JSON, as the crossings write it.
            let object: Value = serde_json::from_str(document).unwrap();
            match self.ferry.cluster.apply(&object) {
                Ok(_) if object["kind"] == "VMMigration" => {
                    let name = object["metadata"]["name"].as_str().unwrap();
                    self.migrations.push(name.to_owned());
                }
                Ok(_) => {}
                Err(refusal) => self.refusal = Some(refusal),
            }
        }
    }

    /// Asks a controller to end, as a cluster does, once it is up.
    #[track_caller]
    fn stop(&mut self) {
        wait_for("the controller", limit(), || TcpStream::connect(self.health).ok());
        self.controller.signal("TERM");
        let status = self.controller.end();
        assert!(
            status.success(),
            "the controller ended with {status}:\n{}",
            self.controller.text()
        );
    }

    /// The same migrations, with another controller at work on them. Gives the one that was.
    #[allow(dead_code, reason = "for tests that go past the scenarios")]
    pub fn goes_on_with(&mut self, other: Self) -> Process {
        self.health = other.health;
        std::mem::replace(&mut self.controller, other.controller)
    }

    /// Sends a signal to the controller alone.
    #[allow(dead_code, reason = "for tests that go past the scenarios")]
    pub fn signal_controller(&self, name: &str) {
        self.controller.signal(name);
    }

    fn are_over(&self) -> bool {
        let is_over = |name: &String| self.seen.get(name).is_some_and(|record| record.is_over());
        self.migrations.iter().all(is_over)
    }

    /// What the controller and its workers have said so far, and what the migrations say.
    pub fn text(&self) -> String {
        let messages = self.migrations.iter().filter_map(|name| {
            let record = self.seen.get(name)?;
            Some(format!("{name}: {}: {}\n", record.phase(), record.status("message")))
        });
        let messages: String = messages.collect();
        format!("{}\n{}\n{messages}", self.controller.text(), self.ferry.kubelet.logs())
    }

    /// Waits until a migration is as wanted.
    #[track_caller]
    pub fn await_record(
        &mut self,
        name: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Record) -> bool,
    ) -> Record {
        let start = Instant::now();
        while start.elapsed() < limit && self.controller.status().is_none() {
            if let Some(record) = self.seen.get(name).filter(|record| wanted(record)) {
                return record;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{name} was never {what}. vmferry said:\n{}", self.text());
    }

    /// Kills the controller with SIGKILL as soon as a migration is in this phase; its workers work on. False where the migration
    /// was over or passed on before.
    pub fn kill_in(mut self, name: &str, phase: &str) -> bool {
        let start = Instant::now();
        let is_there = |record: &Record| record.phase() == phase && !record.is_over();
        while start.elapsed() < limit() && !self.are_over() {
            if self.seen.get(name).is_some_and(|record| is_there(&record)) {
                self.kill();
                // What is durable when it died is what counts.
                return self.ferry.find(name).is_some_and(|record| is_there(&record));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        false
    }

    /// Kills the controller with SIGKILL.
    pub fn kill(&mut self) {
        self.controller.kill();
    }

    /// Sends a signal to the controller; one that halts or wakes, to the workers as well.
    pub fn signal(&mut self, name: &str) {
        self.controller.signal(name);
        self.interrupted |= name == "INT";
        if ["STOP", "CONT"].contains(&name) {
            for pod in self.ferry.kubelet.running() {
                run(Command::new("kill").args(["-s", name, &pod.pid.to_string()]));
            }
        }
    }
}
