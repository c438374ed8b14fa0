//! The worker's side of the lease: taking it, renewing it, and stopping when that does not succeed.
//!
//! A thread of its own watches over the renewals, so that neither a blocked runtime nor an API server that does not answer
//! keeps a worker moving bytes that may be another's by now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use vmferry_engine::port::{DiskProgress, Job, JobState};

use super::answer::{Trouble, optional, within};
use super::beat::{self, Beat};
use super::names::lease_name;
use super::sight::Sightings;
use super::{FENCED, KILLED, RENEWED, SILENT};

/// How long a worker waits for the lease.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long one renewal may take, so that there are several before it is too late.
const CALL: Duration = Duration::from_secs(4);
/// How long is waited before what did not succeed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long is tried to say what came of a job. No byte moves any more.
const CONCLUDING: Duration = Duration::from_mins(2);
/// How long is tried to let go of a lease where nothing came of the job: it only spares the next worker some waiting.
const LETTING_GO: Duration = Duration::from_secs(5);
/// The longest that is waited between two tries.
const LONGEST: Duration = Duration::from_secs(10);
/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(250);

/// How far a job is, for whoever asks.
pub type Progress = Arc<dyn Fn() -> Vec<DiskProgress> + Send + Sync>;

/// Which lease a worker is to hold, and as whom.
#[derive(Debug, Clone)]
pub struct Claim {
    namespace: String,
    lease: String,
    run: String,
    holder: String,
}

impl Claim {
    /// The lease of this job's migration, for the worker `holder` of this run.
    pub fn new(job: &Job, run: impl Into<String>, holder: impl Into<String>) -> Self {
        Self {
            namespace: job.migration.namespace.clone(),
            lease: lease_name(&job.owner),
            run: run.into(),
            holder: holder.into(),
        }
    }

    fn allows(&self, beat: &Beat) -> bool {
        beat.run == self.run
    }

    fn holds(&self, beat: &Beat) -> bool {
        beat.holder.as_ref() == Some(&self.holder) && beat.holder_run == self.run
    }
}

/// The worker could not take, keep or use its lease.
#[derive(Debug, Error)]
pub enum HeartbeatError {
    /// It was told to stop before it began.
    #[error("told to stop while waiting for the lease {0}")]
    Stopped(String),
    /// It did not get the lease in time.
    #[error("cannot take the lease {lease}: {detail}; this worker is ended, and the controller starts another one")]
    NotTaken {
        /// Which.
        lease: String,
        /// Why.
        detail: String,
    },
    /// It lost the lease, and has stopped moving bytes.
    #[error("lost the lease {0}: the job is another worker's now, or was called off")]
    Lost(String),
    /// What came of the job could not be said.
    #[error("cannot write what came of the job to the lease {lease}: {detail}; it will be done once more")]
    Unsaid {
        /// Which.
        lease: String,
        /// Why.
        detail: String,
    },
}

/// A lease that is held, and renewed until it is given back.
pub struct Heartbeat {
    end: oneshot::Sender<()>,
    keeper: JoinHandle<Keeper>,
}

impl Heartbeat {
    /// Takes the lease, waiting for whoever holds it, and renews it from then on, with how far the job is.
    ///
    /// `stop` is cancelled when the lease is lost: no byte may move after that. A process in which one still might when the
    /// time is up is ended by `kill`, which must not return. `stop` also ends the waiting.
    pub async fn take(
        client: Client,
        claim: Claim,
        progress: Progress,
        stop: CancellationToken,
        kill: fn(),
    ) -> Result<Self, HeartbeatError> {
        let leases = Api::namespaced(client, &claim.namespace);
        let mut keeper = Keeper {
            leases,
            claim,
            progress,
            lease: Lease::default(),
            guard: Arc::default(),
        };
        let taken = tokio::select! {
            () = stop.cancelled() => Err(HeartbeatError::Stopped(keeper.name())),
            taken = keeper.take() => taken,
        };
        let at = taken?;
        keeper.guard.renewed(at);
        watch_over(Arc::clone(&keeper.guard), stop.clone(), kill);
        let (end, ended) = oneshot::channel();
        Ok(Self {
            end,
            keeper: tokio::spawn(keeper.keep(ended, stop).in_current_span()),
        })
    }

    /// Gives the lease back, saying what came of the job; nothing where it was called off. No byte may move any more.
    pub async fn give_back(self, outcome: Option<JobState>) -> Result<(), HeartbeatError> {
        let _ = self.end.send(());
        match self.keeper.await {
            Ok(keeper) => keeper.conclude(outcome).await,
            Err(error) => Err(HeartbeatError::Lost(error.to_string())),
        }
    }
}

/// Holds the lease.
struct Keeper {
    leases: Api<Lease>,
    claim: Claim,
    progress: Progress,
    /// As last read or written.
    lease: Lease,
    guard: Arc<Guard>,
}

/// What came of a renewal.
enum Renewal {
    Renewed,
    NotNow,
    Lost,
}

impl Keeper {
    fn name(&self) -> String {
        format!("{}/{}", self.claim.namespace, self.claim.lease)
    }

    async fn read(&self) -> Result<Option<Lease>, Trouble> {
        optional(within(CALL, self.leases.get(&self.claim.lease)).await)
    }

    /// Writes a lease, if it is still as it was read.
    async fn write(&self, lease: &Lease) -> Result<Lease, Trouble> {
        within(
            CALL,
            self.leases.replace(&self.claim.lease, &PostParams::default(), lease),
        )
        .await
    }

    /// Waits until the lease is free and takes it; says when that was asked for.
    async fn take(&mut self) -> Result<Instant, HeartbeatError> {
        let (began, sightings) = (Instant::now(), Sightings::default());
        loop {
            let at = Instant::now();
            let detail = match self.try_to_take(&sightings).await {
                Ok(None) => return Ok(at),
                Ok(Some(reason)) => reason,
                Err(trouble) => trouble.to_string(),
            };
            if began.elapsed() >= PATIENCE {
                let lease = self.name();
                return Err(HeartbeatError::NotTaken { lease, detail });
            }
            tracing::debug!(lease = %self.name(), detail, "not taken yet");
            sleep(PAUSE).await;
        }
    }

    /// Takes the lease, or says why not.
    async fn try_to_take(&mut self, sightings: &Sightings) -> Result<Option<String>, Trouble> {
        let Some(mut lease) = self.read().await? else {
            return Ok(Some("there is none".to_owned()));
        };
        let beat = Beat::of(&lease);
        if !self.claim.allows(&beat) {
            return Ok(Some("it is for another run".to_owned()));
        }
        let silent = sightings.age(&self.claim.lease, &beat.mark) >= SILENT;
        match &beat.holder {
            Some(holder) if !silent && !self.claim.holds(&beat) => return Ok(Some(format!("{holder} holds it"))),
            _ => {}
        }
        beat::take(&mut lease, &self.claim.holder, &self.claim.run);
        match self.write(&lease).await {
            Ok(written) => {
                self.lease = written;
                Ok(None)
            }
            Err(trouble) if trouble.is_conflict() => Ok(Some("it has changed".to_owned())),
            Err(trouble) => Err(trouble),
        }
    }

    /// Renews the lease until it is to end, or is lost.
    async fn keep(mut self, mut end: oneshot::Receiver<()>, stop: CancellationToken) -> Self {
        let mut tick = interval(RENEWED);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut end => break,
                _ = tick.tick() => {}
            }
            let at = Instant::now();
            match self.renew().await {
                Renewal::Renewed => self.guard.renewed(at),
                Renewal::NotNow => tick.reset_after(PAUSE),
                Renewal::Lost => {
                    tracing::error!(lease = %self.name(), "the lease is lost; stopping");
                    stop.cancel();
                    let _ = end.await;
                    break;
                }
            }
        }
        self.guard.dismiss();
        self
    }

    async fn renew(&mut self) -> Renewal {
        let mut lease = self.lease.clone();
        beat::renew(&mut lease, &(self.progress)());
        match self.write(&lease).await {
            Ok(written) => {
                self.lease = written;
                Renewal::Renewed
            }
            Err(trouble) if trouble.is_conflict() => self.look_again().await,
            Err(trouble) if trouble.is_not_found() => Renewal::Lost,
            Err(trouble) => {
                tracing::warn!(lease = %self.name(), %trouble, "the lease was not renewed; trying again");
                Renewal::NotNow
            }
        }
    }

    /// Somebody changed the lease, or our own change was not answered.
    async fn look_again(&mut self) -> Renewal {
        match self.read().await {
            Ok(Some(lease)) => {
                let beat = Beat::of(&lease);
                if !self.claim.allows(&beat) || !self.claim.holds(&beat) {
                    return Renewal::Lost;
                }
                self.lease = lease;
                Renewal::NotNow
            }
            Ok(None) => Renewal::Lost,
            Err(_) => Renewal::NotNow,
        }
    }

    /// Writes what came of the job and lets go of the lease.
    async fn conclude(self, outcome: Option<JobState>) -> Result<(), HeartbeatError> {
        let limit = if outcome.is_some() { CONCLUDING } else { LETTING_GO };
        let (began, mut pause) = (Instant::now(), PAUSE);
        loop {
            let detail = match self.try_to_conclude(outcome.as_ref()).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(HeartbeatError::Lost(self.name())),
                Err(detail) => detail,
            };
            if began.elapsed() + pause >= limit {
                let lease = self.name();
                return Err(HeartbeatError::Unsaid { lease, detail });
            }
            tracing::warn!(lease = %self.name(), detail, "what came of the job could not be written; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Says whether the lease was still ours.
    async fn try_to_conclude(&self, outcome: Option<&JobState>) -> Result<bool, String> {
        let text = |trouble: Trouble| trouble.to_string();
        let Some(mut lease) = self.read().await.map_err(text)? else {
            return Ok(false);
        };
        let beat = Beat::of(&lease);
        if !self.claim.holds(&beat) {
            return Ok(false);
        }
        let ours = self.claim.allows(&beat);
        if ours {
            beat::renew(&mut lease, &(self.progress)());
            if let Some(outcome) = outcome {
                beat::conclude(&mut lease, outcome).map_err(|error| error.to_string())?;
            }
        }
        beat::release(&mut lease);
        self.write(&lease).await.map_err(text)?;
        Ok(ours)
    }
}

/// When the lease was renewed last.
#[derive(Debug, Default)]
struct Guard {
    /// `None` while nothing has to be watched over.
    last: Mutex<Option<Instant>>,
}

impl Guard {
    fn renewed(&self, at: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn dismiss(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn silent(&self) -> Option<Duration> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| last.elapsed())
    }
}

/// Stops what moves bytes when the lease was not renewed for too long, and ends the process where that did not help.
fn watch_over(guard: Arc<Guard>, stop: CancellationToken, kill: fn()) {
    let span = tracing::Span::current();
    std::thread::spawn(move || {
        let _span = span.entered();
        while let Some(silent) = guard.silent() {
            if silent >= KILLED {
                tracing::error!("the lease was not renewed in time, and bytes may still move: ending this process");
                kill();
            }
            if silent >= FENCED && !stop.is_cancelled() {
                tracing::error!("the lease was not renewed in time: stopping");
                stop.cancel();
            }
            std::thread::sleep(LOOK);
        }
    });
}
