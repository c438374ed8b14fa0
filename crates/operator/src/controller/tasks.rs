//! A task for each migration that has something to do.
//!
//! A task steps its migration, waits for as long as the engine says or until it is woken, and ends when there is nothing
//! more to do; the next change of the migration starts another. So one migration that hangs, fails or panics holds up no
//! other, and those that have ended cost nothing.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use vmferry_api::Key;
use vmferry_engine::port::StoreError;
use vmferry_engine::{Engine, Next};

use super::report::Reporter;
use crate::cache::Entry;
use crate::lease::Leadership;
use crate::metrics::{Metrics, Step};
use crate::store::KubeStore;

/// The first and the longest wait after the store failed.
const FAILED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_mins(1));
/// The first and the longest wait after somebody else changed the migration.
const CONFLICT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After how many failures in a row the migration's user is told.
const TELL_AFTER: u32 = 3;

/// What the tasks work with.
pub(super) struct Parts {
    pub engine: Engine,
    pub store: Arc<KubeStore>,
    pub reporter: Reporter,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    /// How many steps are done at once.
    pub concurrency: usize,
}

/// All tasks.
pub(super) struct Tasks {
    parts: Parts,
    permits: Semaphore,
    running: Mutex<HashMap<Key, Handle>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

struct Handle {
    notify: Arc<Notify>,
    /// Whether it was woken since it last began to look.
    woken: bool,
}

/// What a task does next.
enum Then {
    Wait(Duration),
    End,
}

impl Tasks {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            permits: Semaphore::new(parts.concurrency.max(1)),
            parts,
            running: Mutex::default(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// How many migrations have a task.
    pub(super) fn len(&self) -> usize {
        self.running().len()
    }

    /// Looks at a migration soon, however long it was to wait.
    pub(super) fn wake(self: &Arc<Self>, key: &Key) {
        let mut running = self.running();
        if let Some(handle) = running.get_mut(key) {
            handle.woken = true;
            handle.notify.notify_one();
            return;
        }
        if self.stop.is_cancelled() {
            return;
        }
        let notify = Arc::new(Notify::new());
        let handle = Handle {
            notify: Arc::clone(&notify),
            woken: false,
        };
        running.insert(key.clone(), handle);
        let (tasks, key) = (Arc::clone(self), key.clone());
        self.tracker.spawn(async move { tasks.run(&key, &notify).await });
    }

    /// Looks at all migrations that are known, and at all that have a task.
    pub(super) fn wake_all(self: &Arc<Self>) {
        let mut keys = self.parts.store.migrations.keys();
        keys.extend(self.running().keys().cloned());
        for key in keys {
            self.wake(&key);
        }
    }

    /// Starts no further step, and waits for those that are under way.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn run(self: &Arc<Self>, key: &Key, woken: &Notify) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            self.looks(key);
            match self.turn(key, &mut failures).await {
                Then::End if self.ends(key) => return,
                Then::End => {}
                Then::Wait(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = woken.notified() => {}
                    () = self.stop.cancelled() => {}
                },
            }
        }
    }

    /// One step, when it is its turn.
    async fn turn(&self, key: &Key, failures: &mut u32) -> Then {
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit,
            () = self.stop.cancelled() => return Then::End,
        };
        // Without a permit the tasks are being dropped.
        if permit.is_err() || !self.parts.leadership.holds() {
            return Then::Wait(FAILED.1);
        }
        let entry = self.parts.store.migrations.entry(key);
        let uid = entry.as_ref().and_then(|entry| entry.meta().uid.clone());
        let span = tracing::info_span!("reconcile", migration = %key, uid = uid.unwrap_or_default());
        async {
            match entry {
                Some(Entry::Invalid(invalid)) => {
                    self.parts.reporter.unreadable(key, &invalid).await;
                    Then::End
                }
                _ => self.step(key, failures).await,
            }
        }
        .instrument(span)
        .await
    }

    async fn step(&self, key: &Key, failures: &mut u32) -> Then {
        self.parts.reporter.readable(key).await;
        let began = Instant::now();
        let step = AssertUnwindSafe(self.parts.engine.step(key)).catch_unwind().await;
        let how = match &step {
            Ok(Ok(_)) => Step::Done,
            Ok(Err(error)) if error.conflict => Step::Conflict,
            Ok(Err(_)) => Step::Store,
            Err(_) => Step::Panic,
        };
        self.parts.metrics.stepped(how, began.elapsed());
        match step {
            Ok(Ok(next)) => {
                *failures = 0;
                then(next)
            }
            Ok(Err(error)) => self.failed(key, &error, failures).await,
            Err(_) => {
                tracing::error!("a step panicked, which is a fault of vmferry; it is tried again");
                *failures += 1;
                Then::Wait(backoff(FAILED, *failures))
            }
        }
    }

    async fn failed(&self, key: &Key, error: &StoreError, failures: &mut u32) -> Then {
        *failures += 1;
        if error.conflict {
            tracing::debug!(%error, failures, "the migration changed meanwhile; it is looked at again");
            return Then::Wait(backoff(CONFLICT, *failures));
        }
        tracing::warn!(%error, failures, "the cluster could not be asked or told; trying again");
        if *failures == TELL_AFTER {
            self.parts.reporter.failing(key, error).await;
        }
        Then::Wait(backoff(FAILED, *failures))
    }

    /// What it was woken for up to now is seen by the step that begins.
    fn looks(&self, key: &Key) {
        if let Some(handle) = self.running().get_mut(key) {
            handle.woken = false;
        }
    }

    /// Takes the task off the list, unless it was woken meanwhile.
    fn ends(&self, key: &Key) -> bool {
        let mut running = self.running();
        let ends = running.get(key).is_none_or(|handle| !handle.woken);
        if ends {
            running.remove(key);
        }
        ends
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn then(next: Next) -> Then {
    tracing::debug!(?next, "stepped");
    match next {
        Next::Now => Then::Wait(Duration::ZERO),
        Next::After(wait) => Then::Wait(wait),
        Next::Done(_) | Next::Gone => Then::End,
    }
}

/// A wait that doubles with every failure in a row, up to a limit.
fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20)))
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let waits: Vec<_> = (1..=4).map(|failures| backoff(FAILED, failures).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000]);
        assert_eq!(backoff(FAILED, 1000), FAILED.1);
        assert_eq!(backoff(CONFLICT, 1), CONFLICT.0);
    }
}
