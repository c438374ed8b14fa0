//! Going on by itself after a failure that passes.
//!
//! Stores repeat single calls. This is the level above: a pass that failed is followed by another one that goes on where it
//! stopped, so that a connection that breaks costs neither the migration an attempt nor the transfer its place.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmferry_staging::Kind as Staging;

use crate::progress::Progress;
use crate::{Error, Kind};

/// The longest wait between two passes.
const LONGEST: Duration = Duration::from_secs(15);

/// How long to go on after failures.
#[derive(Debug)]
pub(crate) struct Patience {
    tries: u32,
    /// The wait after the first failure; it doubles with each one that follows.
    first: Duration,
    /// Failures in a row without progress, and what had been moved at the last one.
    failures: u32,
    moved: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(Self::TRIES, Self::FIRST)
    }
}

impl Patience {
    /// How often in a row a pass may fail without moving anything.
    pub(crate) const TRIES: u32 = 5;
    /// The wait after the first failure.
    pub(crate) const FIRST: Duration = Duration::from_millis(500);

    /// Patience for `tries` failures in a row without progress.
    pub(crate) fn new(tries: u32, first: Duration) -> Self {
        let (failures, moved) = (0, 0);
        Self {
            tries,
            first,
            failures,
            moved,
        }
    }

    /// Waits, where trying again may help; gives the failure back otherwise.
    pub(crate) async fn after(
        &mut self,
        error: Error,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let moved = progress.moved();
        if moved > self.moved {
            (self.failures, self.moved) = (0, moved);
        }
        if !passes(error.kind()) || self.failures >= self.tries {
            return Err(error);
        }
        let wait = self.wait();
        self.failures += 1;
        tracing::warn!(%error, tries = self.failures, "going on in {} ms", wait.as_millis());
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(error),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Between half and the whole of what the count of failures asks for, so that many do not come back at once.
    fn wait(&self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Whether a failure is one of the store's or the network's that passes. What is wrong with the disk, the target or a full
/// store is for others to decide.
fn passes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Stalled | Kind::Staging(Staging::Unreachable | Staging::Busy | Staging::Failed | Staging::UploadGone)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> Error {
        Error::new(kind, "try", "the test")
    }

    #[tokio::test]
    async fn progress_renews_it_and_waits_grow() {
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let mut patience = Patience::new(Patience::TRIES, Duration::from_millis(4));
        let busy = || error(Kind::Staging(Staging::Busy));
        for round in 0..3 {
            let started = tokio::time::Instant::now();
            for _ in 0..Patience::TRIES {
                patience.after(busy(), &progress, &cancel).await.unwrap();
            }
            let waited = started.elapsed();
            // Half of 4 + 8 + 16 + 32 + 64 at least.
            assert!(waited >= Duration::from_millis(62), "{round}: {waited:?}");
            progress.advance(1);
        }
        for _ in 0..Patience::TRIES {
            patience.after(busy(), &progress, &cancel).await.unwrap();
        }
        patience.after(busy(), &progress, &cancel).await.unwrap_err();
    }

    #[tokio::test]
    async fn what_does_not_pass_comes_out_at_once() {
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let mut patience = Patience::default();
        let kinds = [
            Kind::Staging(Staging::Denied),
            Kind::Staging(Staging::NoSpace),
            Kind::Source(vmferry_provider::Kind::Unreachable),
            Kind::Target(vmferry_provider::Kind::Busy),
            Kind::FrozenStateGone,
            Kind::StagedCorrupt,
            Kind::Cancelled,
            Kind::Bug,
        ];
        for kind in kinds {
            patience.after(error(kind), &progress, &cancel).await.unwrap_err();
        }
        cancel.cancel();
        patience
            .after(error(Kind::Stalled), &progress, &cancel)
            .await
            .unwrap_err();
    }
}
