//! The controller: watches, leads, and calls the engine's steps.
//!
//! ```text
//! watch ──▶ caches ──▶ tasks (one for each migration that has something to do) ──▶ Engine::step
//!             ▲                                                                        │
//!             └──────────────── what was written ◀── KubeStore ◀───────────────────────┘
//! ```
//!
//! Every replica watches, so that the next leader knows everything already; only the leader steps. A leader that lost its
//! lease ends at once, in the middle of a step if need be, which is no worse than a crash. One that is asked to stop lets
//! its steps end, stops what its executor runs in this process, and gives the lease up.

mod face;
mod report;
mod tasks;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vmferry_engine::{Config, Engine, Ports};

use self::face::Face;
use self::report::Reporter;
use self::tasks::{Parts, Tasks};
use crate::cache::Change;
use crate::error::Error;
use crate::events::KubeEvents;
use crate::http::{listen, serve_health, serve_metrics};
use crate::lease::{Elector, Leadership, LeaseSettings};
use crate::metrics::Metrics;
use crate::store::{KubeStore, Observer};
use crate::upkeep::{Keeper, Upkeep};

/// How long the steps and the jobs that are under way may take to end when all is to stop.
const WINDING_DOWN: Duration = Duration::from_secs(40);
/// The fewest steps that are done at once.
const STEPS: usize = 64;

/// What can be set.
#[derive(Clone)]
pub struct Settings {
    /// The only namespace whose migrations are looked at; all where none is given.
    pub watch_namespace: Option<String>,
    /// Which lease the leader holds; none where there is only one replica.
    pub lease: Option<LeaseSettings>,
    /// The name of this process in events.
    pub identity: String,
    /// Whether the status of Providers and VirtualMachines is kept.
    pub upkeep: Upkeep,
    /// Where metrics are served.
    pub metrics_addr: Option<SocketAddr>,
    /// Where health is served.
    pub health_addr: Option<SocketAddr>,
    /// Who else hears of what is saved.
    pub observers: Vec<Arc<dyn Observer>>,
}

/// The operator, with its store and its events on an API server.
pub struct Operator {
    client: Client,
    settings: Settings,
    leadership: Leadership,
    store: Arc<KubeStore>,
    events: Arc<KubeEvents>,
    metrics: Arc<Metrics>,
}

impl Operator {
    /// An operator that has not begun yet.
    pub fn new(client: Client, settings: Settings) -> Self {
        let leadership = match settings.lease {
            Some(_) => Leadership::none(),
            None => Leadership::always(),
        };
        let metrics = Arc::new(Metrics::default());
        let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::clone(&metrics) as _];
        observers.extend(settings.observers.iter().cloned());
        let store = KubeStore::new(client.clone(), leadership.clone(), observers);
        let events = KubeEvents::new(client.clone(), settings.identity.clone());
        Self {
            client,
            settings,
            leadership,
            store: Arc::new(store),
            events: Arc::new(events),
            metrics,
        }
    }

    /// The store, for the ports.
    pub fn store(&self) -> Arc<KubeStore> {
        Arc::clone(&self.store)
    }

    /// The events, for the ports.
    pub fn events(&self) -> Arc<KubeEvents> {
        Arc::clone(&self.events)
    }

    /// Works until `stop`, then lets the steps end and waits for `drain`, which stops what else this process runs.
    ///
    /// # Errors
    /// When the lease is lost: the caller must end the process without delay. When an address is taken.
    pub async fn run(
        self,
        ports: Ports,
        config: Config,
        stop: CancellationToken,
        drain: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let metrics = listen("metrics", self.settings.metrics_addr).await?;
        let health = listen("health", self.settings.health_addr).await?;
        let connector = Arc::clone(&ports.connector);
        let keeper = Keeper::new(self.client.clone(), self.store(), connector, self.settings.upkeep);
        let tasks = Arc::new(self.tasks(ports, config));
        let face = Arc::new(Face {
            store: self.store(),
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.metrics),
            tasks: Arc::clone(&tasks),
        });
        tokio::select! {
            () = serve_metrics(metrics, Arc::clone(&face)) => Ok(()),
            () = serve_health(health, face) => Ok(()),
            () = self.watch(&tasks) => Ok(()),
            result = self.lead(&tasks, &keeper, &stop, drain) => result,
        }
    }

    fn tasks(&self, ports: Ports, config: Config) -> Tasks {
        Tasks::new(Parts {
            concurrency: STEPS.max(2 * config.max_concurrent),
            engine: Engine::new(ports, config),
            store: self.store(),
            reporter: Reporter {
                client: self.client.clone(),
                store: self.store(),
                events: self.events(),
            },
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Keeps the caches up to date, and wakes those whose migration changed. Never ends.
    async fn watch(&self, tasks: &Arc<Tasks>) {
        let namespace = self.settings.watch_namespace.as_deref();
        let changed = |change| {
            if !self.leadership.holds() {
                return;
            }
            match change {
                Change::Applied { key, by_user: true } | Change::Removed(key) => tasks.wake(&key),
                Change::Applied { .. } => {}
                Change::Listed => tasks.wake_all(),
            }
        };
        self.store.watch(namespace, changed).await;
    }

    /// Waits until this process knows everything and leads, then steps until it is to stop.
    async fn lead(
        &self,
        tasks: &Arc<Tasks>,
        keeper: &Keeper,
        stop: &CancellationToken,
        drain: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let elector = self.settings.lease.clone().map(|lease| {
            let leadership = self.leadership.clone();
            Elector::new(self.client.clone(), lease, leadership)
        });
        let lost = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            lost = self.begin(elector.as_ref()) => lost,
        };
        tasks.wake_all();
        tokio::select! {
            () = keeper.run() => Ok(()),
            why = lost => Err(Error::LeaseLost(why)),
            () = self.end(tasks, stop, drain, elector.as_ref()) => Ok(()),
        }
    }

    /// Waits until this process knows everything and leads. What comes back ends when it leads no more, with the reason.
    async fn begin<'e>(&self, elector: Option<&'e Elector>) -> BoxFuture<'e, String> {
        self.store.synced().await;
        match elector {
            None => std::future::pending().boxed(),
            Some(elector) => {
                let lease = elector.acquire().await;
                elector.keep(lease).boxed()
            }
        }
    }

    /// Waits until all is to stop, and stops it.
    async fn end(
        &self,
        tasks: &Tasks,
        stop: &CancellationToken,
        drain: impl Future<Output = ()>,
        elector: Option<&Elector>,
    ) {
        stop.cancelled().await;
        tracing::info!(running = tasks.len(), "stopping");
        let quietly = async {
            tasks.stop().await;
            drain.await;
        };
        if timeout(WINDING_DOWN, quietly).await.is_err() {
            // It acts until this process ends. The lease is kept for as long, and runs out as after a crash.
            tracing::warn!("a step or a job did not end in time; it ends with this process, and the lease runs out");
        } else if let Some(elector) = elector {
            elector.release().await;
        }
    }
}
