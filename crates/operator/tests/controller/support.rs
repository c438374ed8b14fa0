//! What the tests share: a cluster, operators on it, and migrations for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vmferry_api::{MigrationStorage, Provider, Secret, Time};
use vmferry_engine::port::{Clock, Connector, Executor, ExecutorError, Job, JobId, JobState};
use vmferry_engine::{Config, Ports};
use vmferry_operator::{Error, LeaseSettings, Operator, Settings, Upkeep};
use vmferry_provider::Hypervisor;
use vmferry_staging::StagingStore;
use vmferry_testkit::kube::{Cluster, ClusterSpec};

pub const MIGRATION: (&str, &str) = ("infra.virtrigaud.io/v1beta1", "VMMigration");
pub const NS: &str = "default";
/// How long anything may take that is not measured.
const LIMIT: Duration = Duration::from_secs(40);

/// A cluster with our CRDs and no controllers.
pub fn cluster() -> Cluster {
    Cluster::with(&ClusterSpec {
        crds: crds(),
        controllers: false,
        ..ClusterSpec::default()
    })
}

pub fn crds() -> Vec<Value> {
    vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect()
}

/// A migration between Providers that are declared nowhere.
pub fn migration(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": MIGRATION.0, "kind": MIGRATION.1,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "sourceName": "web", "sourceNamespace": namespace, "targetProviderRef": {"name": "b"}, "targetName": name,
            "storage": {"type": "nfs", "path": "/staging"},
            "retryPolicy": {"maxAttempts": 100, "backoffDuration": "2s", "maxBackoffDuration": "2s"}
        }
    })
}

/// What an API server has of a migration.
pub fn found(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    cluster.get(MIGRATION, namespace, name).unwrap_or_default()
}

/// How many retries were scheduled, which says that somebody looks after the migration.
pub fn retries(cluster: &Cluster, namespace: &str, name: &str) -> i64 {
    found(cluster, namespace, name)["status"]["retryAttempts"]
        .as_i64()
        .unwrap_or(0)
}

/// Waits until something is so, and gives how long it took.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(100));
    }
    began.elapsed()
}

/// An operator in this process.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// One among several.
    pub fn elected(client: Client, identity: &str) -> Self {
        let lease = LeaseSettings {
            namespace: NS.to_owned(),
            name: "vmferry".to_owned(),
            identity: identity.to_owned(),
        };
        Self::start(client, identity, Some(lease))
    }

    /// The only one.
    pub fn alone(client: Client) -> Self {
        Self::start(client, "alone", None)
    }

    fn start(client: Client, identity: &str, lease: Option<LeaseSettings>) -> Self {
        let settings = Settings {
            watch_namespace: None,
            lease,
            identity: identity.to_owned(),
            upkeep: Upkeep::Read,
            metrics_addr: None,
            health_addr: None,
            observers: Vec::new(),
        };
        let operator = Operator::new(client, settings);
        let ports = Ports {
            store: operator.store(),
            connector: Arc::new(Away),
            executor: Arc::new(Away),
            clock: Arc::new(Away),
            events: operator.events(),
        };
        let stop = CancellationToken::new();
        let running = operator.run(ports, Config::default(), stop.clone(), async {});
        let task = tokio::spawn(running);
        Self { stop, task }
    }

    /// As by SIGTERM.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// As by SIGKILL: nothing is given up, nothing more is done.
    pub fn kill(self) {
        self.task.abort();
    }

    /// How it ended by itself.
    pub async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap()
    }
}

/// Hosts and storage that do not answer, and the system's clock.
pub struct Away;

#[async_trait]
impl Connector for Away {
    async fn hypervisor(
        &self,
        _: &Provider,
        _: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error> {
        let fault = vmferry_provider::Error::new(vmferry_provider::Kind::Unreachable, "connect to", "the host");
        Err(fault.detail("it is away"))
    }

    async fn staging(
        &self,
        _: &MigrationStorage,
        _: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error> {
        let fault = vmferry_staging::Error::new(vmferry_staging::Kind::Unreachable, "open", "the storage");
        Err(fault.detail("it is away"))
    }
}

#[async_trait]
impl Executor for Away {
    async fn start(&self, job: &Job) -> Result<(), ExecutorError> {
        panic!("{} is started, though no host answers", job.id)
    }

    async fn observe(&self, _: &JobId) -> Result<JobState, ExecutorError> {
        Ok(JobState::Absent)
    }

    async fn cancel(&self, _: &JobId) -> Result<(), ExecutorError> {
        Ok(())
    }
}

impl Clock for Away {
    fn now(&self) -> Time {
        Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap())
    }
}
