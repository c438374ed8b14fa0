//! The engine: one step of one migration.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmferry_api::{Key, Phase, Time};

use crate::deletion;
use crate::failure::{self, Failure, Trouble};
use crate::line::Admission;
use crate::phase::{self, Row};
use crate::port::{Clock, Connector, Events, Executor, Store, StoreError};
use crate::request::{self, Asked};
use crate::run::{Outcome, Run};

/// The ports that an engine works with.
#[derive(Clone)]
pub struct Ports {
    /// Where the resources live.
    pub store: Arc<dyn Store>,
    /// Who opens hypervisors and staging stores.
    pub connector: Arc<dyn Connector>,
    /// Who moves the bytes.
    pub executor: Arc<dyn Executor>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who is told of milestones.
    pub events: Arc<dyn Events>,
}

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many migrations may be past admission at once; at least 1.
    pub max_concurrent: usize,
    /// Unfinished migrations that nobody drives: they are in nobody's way.
    pub bystanders: BTreeSet<Key>,
    /// How many of them may use one Provider at once, as source or target. Default: no limit but the one on all.
    pub max_per_provider: Option<usize>,
    /// How many of them may use one host at once, whichever Providers lead to it. Default: no limit but the one on all.
    pub max_per_host: Option<usize>,
    /// Whether each target volume is read once more and compared.
    pub readback: bool,
    /// How long to wait before a job, or a free slot, is looked at again.
    pub poll: Duration,
    /// How often progress is written at most.
    pub progress_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent: 4,
            bystanders: BTreeSet::new(),
            max_per_provider: None,
            max_per_host: None,
            readback: false,
            poll: Duration::from_secs(1),
            progress_interval: Duration::from_secs(3),
        }
    }
}

/// When to call [`Engine::step`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: something was recorded and there is more to do.
    Now,
    /// After this long, or earlier: calling too early does no harm.
    After(Duration),
    /// Only when the migration is being deleted: it has come to its end in [`Phase::Ready`] or [`Phase::Failed`].
    Done(Phase),
    /// Never: there is no such migration any more.
    Gone,
}

/// Drives migrations, each a step at a time. Steps of different migrations may run at the same time; those of one may not.
pub struct Engine {
    ports: Ports,
    config: Config,
    admission: Arc<Admission>,
    /// When progress was last written: only to spare the store, so it may be lost.
    written: Mutex<HashMap<Key, Time>>,
}

impl Engine {
    /// An engine over these ports.
    pub fn new(ports: Ports, config: Config) -> Self {
        Self {
            ports,
            config,
            admission: Arc::default(),
            written: Mutex::default(),
        }
    }

    /// Does one step of a migration: looks at the world, does at most what is missing next, records it.
    ///
    /// Safe to call at any time, again, and after a crash at any instant. Failures of the migration are recorded in its
    /// status; an error is only what the store answered when it could not be read or written: call again after a while.
    pub async fn step(&self, key: &Key) -> Result<Next, StoreError> {
        let next = self.turn(key).await;
        if matches!(next, Ok(Next::Done(_) | Next::Gone)) {
            self.written().remove(key);
        }
        next
    }

    async fn turn(&self, key: &Key) -> Result<Next, StoreError> {
        let Some(migration) = self.ports.store.migration(key).await? else {
            return Ok(Next::Gone);
        };
        let mut run = Run::new(
            self.ports.clone(),
            self.config.clone(),
            Arc::clone(&self.admission),
            key.clone(),
            migration,
        );
        let held = holds_slot(&run);
        let next = self.go(&mut run).await?;
        if held != holds_slot(&run) || next == Next::Gone {
            self.admission.moved();
        }
        Ok(next)
    }

    async fn go(&self, run: &mut Run) -> Result<Next, StoreError> {
        if run.migration.metadata.deletion_timestamp.is_some() {
            return deletion::step(run).await;
        }
        let row = phase::row(run.status.phase);
        match request::take(run) {
            Asked::Nothing => {}
            Asked::Again => {
                run.save().await?;
                return Ok(Next::Now);
            }
            Asked::Cancel(failure) => return fail(run, row, failure).await,
        }
        if run.status.completion_time.is_some() {
            run.save().await?;
            return Ok(Next::Done(run.status.phase));
        }
        if let Some(wait) = run.retry_in() {
            return Ok(Next::After(wait));
        }
        run.status.next_retry_time = None;
        run.hold();
        match (row.act)(run).await {
            Ok(outcome) => self.record(run, row, outcome).await,
            Err(Trouble::Store(error)) => Err(error),
            Err(Trouble::Failure(failure)) => fail(run, row, failure).await,
        }
    }

    async fn record(&self, run: &mut Run, row: &Row, outcome: Outcome) -> Result<Next, StoreError> {
        let next = match outcome {
            Outcome::Done(reason, message) => done(run, row, reason, message),
            Outcome::Again => Next::Now,
            Outcome::Wait(wait) => Next::After(wait),
            Outcome::Progress => {
                let next = Next::After(self.config.poll);
                if !self.due(run) {
                    return Ok(next);
                }
                next
            }
        };
        run.save().await?;
        Ok(next)
    }

    /// Whether it is time to write progress again.
    fn due(&self, run: &Run) -> bool {
        let now = run.now();
        let mut written = self.written();
        let due = written
            .get(&run.key)
            .is_none_or(|last| failure::between(last, &now) >= self.config.progress_interval);
        if due {
            written.insert(run.key.clone(), now);
        }
        due
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Key, Time>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a migration takes a place from others.
fn holds_slot(run: &Run) -> bool {
    run.status.phase != Phase::Pending && run.status.completion_time.is_none()
}

async fn fail(run: &mut Run, row: &Row, failure: Failure) -> Result<Next, StoreError> {
    let next = failure::take(run, row, failure);
    run.save().await?;
    Ok(next)
}

/// The phase is done: on to the next one, or to the end.
fn done(run: &mut Run, row: &Row, reason: &str, message: String) -> Next {
    if let Some(name) = row.condition {
        // The condition Ready is for the end; ValidatingTarget, which shares it, only leads there.
        run.condition(name, row.phase != Phase::ValidatingTarget, reason, message.clone());
    }
    run.progress(row.progress.1);
    run.status.message = Some(message);
    if let Some(next) = row.next {
        run.status.phase = next;
        return Next::Now;
    }
    run.status.completion_time = Some(run.now());
    Next::Done(row.phase)
}
