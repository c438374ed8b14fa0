//! The executor that runs jobs on tasks of this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;
use vmferry_api::Key;
use vmferry_engine::port::{
    Connector, Direction, DiskProgress, DiskReport, Executor, ExecutorError, FailureKind, Job, JobFailure, JobId,
    JobState, Store,
};

use crate::failure::failure;
use crate::progress::JobProgress;
use crate::run::run_job;

/// How long a job may take to stop: what is under way is waited for, and that ends by itself when nothing moves.
const STOPPING: Duration = Duration::from_mins(3);

/// Runs jobs on tasks of this process. Dropping it calls all of them off.
pub struct InlineExecutor {
    connector: Arc<dyn Connector>,
    store: Arc<dyn Store>,
    jobs: Mutex<BTreeMap<JobId, Entry>>,
    all: CancellationToken,
    /// How many jobs have ended.
    ended: watch::Sender<u64>,
    _off: DropGuard,
}

type Outcome = Result<Vec<DiskReport>, JobFailure>;

#[derive(Clone)]
struct Entry {
    job: Arc<Job>,
    progress: JobProgress,
    cancel: CancellationToken,
    /// `None` while it runs. The other end is closed without an outcome only by a panic.
    outcome: watch::Receiver<Option<Outcome>>,
}

/// A job under way, for whoever shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningJob {
    /// Its id.
    pub id: JobId,
    /// The migration.
    pub migration: Key,
    /// Whether it exports; otherwise it imports.
    pub is_export: bool,
    /// Name at the source and progress of each disk, in order.
    pub disks: Vec<(String, DiskProgress)>,
}

impl InlineExecutor {
    /// An executor that opens what a job names by way of `connector` and `store`.
    pub fn new(connector: Arc<dyn Connector>, store: Arc<dyn Store>) -> Self {
        let all = CancellationToken::new();
        Self {
            connector,
            store,
            jobs: Mutex::default(),
            ended: watch::Sender::default(),
            _off: all.clone().drop_guard(),
            all,
        }
    }

    /// Changes whenever a job has ended, so that nobody has to wait for the next look at it.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// The jobs that are under way, by id. Cheap: it may be asked several times a second.
    pub fn running(&self) -> Vec<RunningJob> {
        let jobs = self.lock();
        let running = jobs.values().filter(|entry| entry.is_running());
        running
            .map(|entry| RunningJob {
                id: entry.job.id.clone(),
                migration: entry.job.migration.clone(),
                is_export: matches!(entry.job.direction, Direction::Export { .. }),
                disks: {
                    let names = entry.job.disks.iter().map(|disk| disk.name.clone());
                    names.zip(entry.progress.disks()).collect()
                },
            })
            .collect()
    }

    /// Stops every job and waits until no byte moves any more. No job can be started afterwards.
    pub async fn shutdown(&self) -> Result<(), ExecutorError> {
        self.all.cancel();
        let ids: Vec<JobId> = self.lock().keys().cloned().collect();
        for id in ids {
            self.cancel(&id).await?;
        }
        Ok(())
    }

    fn spawn(&self, job: &Job) -> Entry {
        let (tell, outcome) = watch::channel(None);
        let entry = Entry {
            job: Arc::new(job.clone()),
            progress: JobProgress::new(job),
            cancel: self.all.child_token(),
            outcome,
        };
        let (connector, store) = (Arc::clone(&self.connector), Arc::clone(&self.store));
        let ended = self.ended.clone();
        let Entry {
            job, progress, cancel, ..
        } = entry.clone();
        // A task of its own would log without saying of which migration.
        let span = tracing::info_span!("job", job = %job.id, migration = %job.migration, uid = %job.owner.uid);
        let work = async move {
            let outcome = run_job(&job, &*connector, &*store, &progress, &cancel).await;
            if let Err(failure) = &outcome {
                tracing::warn!(job = %job.id, kind = ?failure.kind, "job failed: {}", failure.message);
            }
            tell.send_replace(Some(outcome));
            ended.send_modify(|count| *count += 1);
        };
        tokio::spawn(work.instrument(span));
        entry
    }

    fn entry(&self, id: &JobId) -> Option<Entry> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn state(&self) -> JobState {
        // In this order: an outcome that comes in between is seen.
        let closed = self.outcome.has_changed().is_err();
        match &*self.outcome.borrow() {
            Some(Ok(reports)) => JobState::Succeeded(reports.clone()),
            Some(Err(failure)) => JobState::Failed(failure.clone()),
            None if closed => JobState::Failed(failure(
                FailureKind::Bug,
                "the job ended without an outcome: it panicked",
            )),
            None => JobState::Running(self.progress.disks()),
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.state(), JobState::Running(_))
    }

    fn has_failed(&self) -> bool {
        matches!(self.state(), JobState::Failed(_))
    }
}

#[async_trait]
impl Executor for InlineExecutor {
    async fn start(&self, job: &Job) -> Result<(), ExecutorError> {
        if self.all.is_cancelled() {
            return Err(error("start", &job.id, "this process is stopping"));
        }
        let mut jobs = self.lock();
        if jobs.get(&job.id).is_none_or(Entry::has_failed) {
            let entry = self.spawn(job);
            jobs.insert(job.id.clone(), entry);
        }
        Ok(())
    }

    async fn observe(&self, id: &JobId) -> Result<JobState, ExecutorError> {
        Ok(self.entry(id).map_or(JobState::Absent, |entry| entry.state()))
    }

    async fn cancel(&self, id: &JobId) -> Result<(), ExecutorError> {
        let Some(mut entry) = self.entry(id) else {
            return Ok(());
        };
        entry.cancel.cancel();
        // A closed channel is an end, too.
        let ended = tokio::time::timeout(STOPPING, entry.outcome.wait_for(Option::is_some)).await;
        if ended.is_err() {
            return Err(error("cancel", id, "it has not stopped moving bytes yet"));
        }
        let mut jobs = self.lock();
        // Unless another was started under the same id meanwhile.
        if jobs.get(id).is_some_and(|now| Arc::ptr_eq(&now.job, &entry.job)) {
            jobs.remove(id);
        }
        Ok(())
    }
}

fn error(action: &'static str, job: &JobId, detail: &str) -> ExecutorError {
    ExecutorError {
        action,
        job: job.clone(),
        detail: detail.to_owned(),
        passes: false,
    }
}
