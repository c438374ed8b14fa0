//! Driving migrations to their end: calls the engine step by step, each migration on a task of its own, so that one that
//! waits for its retry holds up no other.
//!
//! A stop (a signal, the time limit) lets each step that is under way end, then stops the jobs. What is recorded by then is
//! enough to go on: to stop is only a crash with better manners.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use vmferry_api::{Key, Phase};
use vmferry_engine::port::{Connector, Store, StoreError};
use vmferry_engine::{Config, Engine, Next, Ports};
use vmferry_local::{LocalEvents, LocalStore};
use vmferry_worker::InlineExecutor;

use crate::clock::SystemClock;
use crate::exit::Failure;
use crate::output::{self, Reporter};

/// How long a step that is under way may take to end when all is to stop.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// How often a state that cannot be written is tried again before a migration is given up for this run.
const STORE_TRIES: u32 = 8;

/// How often progress lines are drawn.
const DRAWING: Duration = Duration::from_millis(300);

/// How a migration ended, as far as this process is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It came to its end.
    Done(Phase),
    /// It was deleted.
    Gone,
    /// It was stopped under way.
    Stopped,
    /// Its state could not be read or written.
    Lost,
}

/// Why all was stopped before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal.
    Interrupted,
    /// The time limit.
    TimedOut,
}

/// What came of a run.
pub struct Driven {
    /// How each migration ended.
    pub endings: Vec<(Key, Ending)>,
    /// Why all was stopped before the end, if it was.
    pub stop: Option<Stop>,
}

/// An engine, and what has to be stopped with it.
pub struct Driver {
    engine: Arc<Engine>,
    executor: Arc<InlineExecutor>,
    reporter: Arc<dyn Reporter>,
}

impl Driver {
    /// An engine over a state directory.
    pub fn new(
        store: &Arc<LocalStore>,
        connector: Arc<dyn Connector>,
        reporter: Arc<dyn Reporter>,
        config: Config,
    ) -> Self {
        let clock = Arc::new(SystemClock);
        let observer = output::observer(&reporter);
        let events = LocalEvents::new(Arc::clone(store.dir()), Arc::clone(&clock) as _, Some(observer));
        let store: Arc<dyn Store> = Arc::clone(store) as _;
        let executor = Arc::new(InlineExecutor::new(Arc::clone(&connector), Arc::clone(&store)));
        let ports = Ports {
            store,
            connector,
            executor: Arc::clone(&executor) as _,
            clock,
            events: Arc::new(events),
        };
        Self {
            engine: Arc::new(Engine::new(ports, config)),
            executor,
            reporter,
        }
    }

    /// Drives these migrations until each has ended, a signal comes, or `limit` is over.
    pub async fn drive(&self, keys: Vec<Key>, limit: Option<Duration>) -> Result<Driven, Failure> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for key in &keys {
            let (engine, key, stop) = (Arc::clone(&self.engine), key.clone(), stop.clone());
            let ended = self.executor.ended();
            tasks.spawn(async move {
                let ending = to_the_end(&engine, &key, &stop, ended).await;
                (key, ending)
            });
        }
        let mut endings = Vec::new();
        let stopped = tokio::select! {
            () = self.collect(&mut tasks, &mut endings) => None,
            signal = interrupted() => Some(signal.map(|()| Stop::Interrupted)?),
            () = elapsed(limit) => Some(Stop::TimedOut),
        };
        if stopped.is_some() {
            self.reporter.note(
                None,
                "stopping: what is under way is brought to a safe point (again to stop at once)",
            );
            stop.cancel();
            self.wind_down(&mut tasks, &mut endings).await;
        }
        for key in keys {
            if !endings.iter().any(|(ended, _)| *ended == key) {
                endings.push((key, Ending::Stopped));
            }
        }
        endings.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Driven { endings, stop: stopped })
    }

    /// Collects endings until every task has ended, drawing progress meanwhile.
    async fn collect(&self, tasks: &mut JoinSet<(Key, Ending)>, endings: &mut Vec<(Key, Ending)>) {
        let mut tick = interval(DRAWING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    Some(Ok(ended)) => endings.push(ended),
                    Some(Err(error)) => tracing::error!(%error, "a migration's task ended without a result"),
                    None => return,
                },
                _ = tick.tick() => self.reporter.running(&self.executor.running()),
            }
        }
    }

    /// Waits for the steps that are under way, then stops the jobs. Another signal cuts it short.
    async fn wind_down(&self, tasks: &mut JoinSet<(Key, Ending)>, endings: &mut Vec<(Key, Ending)>) {
        let quietly = async {
            if timeout(STEP_LIMIT, self.collect(tasks, endings)).await.is_err() {
                tracing::warn!("a step did not end in time; it is cut off, which is as safe as a crash");
            }
            tasks.shutdown().await;
            if let Err(error) = self.executor.shutdown().await {
                tracing::warn!(%error, "a job could not be stopped");
            }
        };
        tokio::select! {
            () = quietly => {}
            _ = interrupted() => {}
        }
    }
}

/// Steps a migration until it ends or all is to stop. It is looked at again early when a job has ended: it may be its own.
async fn to_the_end(
    engine: &Engine,
    key: &Key,
    stop: &CancellationToken,
    mut job_ended: watch::Receiver<u64>,
) -> Ending {
    let mut failures = 0;
    while !stop.is_cancelled() {
        job_ended.mark_unchanged();
        let step = engine.step(key).await;
        if step.is_ok() {
            failures = 0;
        }
        let wait = match step {
            Ok(Next::Now) => Duration::ZERO,
            Ok(Next::After(wait)) => wait,
            Ok(Next::Done(phase)) => return Ending::Done(phase),
            Ok(Next::Gone) => return Ending::Gone,
            Err(error) if failures >= STORE_TRIES => {
                tracing::error!(migration = %key, %error, "the state cannot be kept; the migration is left as it is");
                return Ending::Lost;
            }
            Err(error) => {
                failures += 1;
                again_after(key, &error, failures)
            }
        };
        if wait.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = sleep(wait) => {}
            // The executor, whose end it is, lives as long as its driver.
            Ok(()) = job_ended.changed() => {}
            () = stop.cancelled() => {}
        }
    }
    Ending::Stopped
}

/// How long to wait after the store failed.
fn again_after(key: &Key, error: &StoreError, failures: u32) -> Duration {
    tracing::warn!(migration = %key, %error, failures, "the state could not be kept; trying again");
    if error.conflict {
        Duration::from_millis(100)
    } else {
        Duration::from_millis(250) * 2_u32.pow(failures)
    }
}

async fn elapsed(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Waits for SIGINT or SIGTERM.
pub fn interrupted() -> impl Future<Output = Result<(), Failure>> {
    let listen = || Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let listening: std::io::Result<_> = listen();
    async move {
        let (mut interrupt, mut terminate) =
            listening.map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}
