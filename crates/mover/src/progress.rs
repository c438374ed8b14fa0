//! How far a transfer is, and whether it still moves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, Kind};

/// Bytes per second of one transfer, on its way to or from a store, that are slow and no failure.
pub(crate) const SLOWEST: u64 = 128 << 10;

/// How often the rate is sampled.
const TICK: Duration = Duration::from_secs(1);
/// Over how many samples the rate is taken.
const SAMPLES: usize = 6;

/// How far the transfer of one disk is. Whoever moves it counts; anybody may look.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    moved: AtomicU64,
    /// Signs of life.
    life: AtomicU64,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

/// How far it is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the staged object that are done, those of earlier attempts included.
    pub done: u64,
    /// Length of the staged object, 0 while it is not known.
    pub total: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
}

impl Progress {
    /// How far it is.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            rate: self.rate(),
        }
    }

    /// Bytes that were moved in this attempt.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Sets what there is to do and what earlier attempts did of it.
    pub(crate) fn start(&self, total: u64, done: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// All of it is done, and was not moved by this process.
    pub fn elsewhere(&self, total: u64) {
        self.start(total, total);
    }

    /// Sets what there is likely to do.
    pub(crate) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// These bytes of the object are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.alive();
    }

    /// A sign of life: bytes went somewhere, though they may not be done yet, or something waits that means to go on, as a
    /// limit of the rate does. Without one for a minute a transfer counts as stalled.
    pub fn alive(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
    }

    fn rate(&self) -> u64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((from, before)), Some((to, now))) = (samples.front(), samples.back()) else {
            return 0;
        };
        let micros = u64::try_from(to.duration_since(*from).as_micros()).unwrap_or(u64::MAX);
        let bytes = u128::from(now - before) * 1_000_000;
        u64::try_from(bytes / u128::from(micros.max(1))).unwrap_or(u64::MAX)
    }

    fn sample(&self) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), self.moved()));
    }

    /// Runs `work`, sampling the rate, and gives it up when no byte moved for `limit`.
    pub(crate) async fn watch<T>(
        &self,
        object: &str,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            outcome = work => outcome,
            () = self.until_stalled(limit) => Err(stalled(object, limit)),
        }
    }

    /// Runs `work` as [`watch`](Self::watch) does, but asks it to stop before it is given up: where it does, it has left
    /// everything in order. `None` where it does not stop, either.
    pub(crate) async fn watch_stopping<T>(
        &self,
        object: &str,
        limit: Duration,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            outcome = &mut work => return Some(outcome),
            () = self.until_stalled(limit) => stop.cancel(),
        }
        let stopped = tokio::time::timeout(limit, work).await.ok()?;
        // What came to light meanwhile is told: a write that failed after all is no silence.
        Some(stopped.map_err(|error| match error.kind() {
            Kind::Cancelled => stalled(object, limit),
            _ => error,
        }))
    }

    async fn until_stalled(&self, limit: Duration) {
        let (mut seen, mut since) = (self.life.load(Ordering::Relaxed), Instant::now());
        loop {
            self.sample();
            tokio::time::sleep(TICK.min(limit)).await;
            let now = self.life.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= limit {
                return;
            }
        }
    }
}

fn stalled(object: &str, limit: Duration) -> Error {
    Error::new(Kind::Stalled, "go on with", object)
        .detail(format!("no byte moved for {} s", limit.as_secs()))
        .remedy("check that the hypervisor and the staging storage answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_is_that_of_the_last_seconds() {
        let progress = Progress::default();
        progress.start(100_000, 50_000);
        let work = async {
            for _ in 0..24 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                progress.advance(200);
            }
            Ok(())
        };
        progress.watch("disk", Duration::from_secs(5), work).await.unwrap();
        let now = progress.snapshot();
        assert_eq!((now.done, now.total, progress.moved()), (54_800, 100_000, 4800));
        assert!((1000..=2200).contains(&now.rate), "{now:?}");
    }

    #[tokio::test]
    async fn silence_ends_it() {
        let progress = Progress::default();
        let silence = std::future::pending::<Result<(), Error>>();
        let watched = progress.watch("disk", Duration::from_millis(50), silence);
        let error = tokio::time::timeout(Duration::from_secs(5), watched)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Stalled);
    }
}
