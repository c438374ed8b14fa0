//! Trying again.

use std::time::Duration;

use tokio::time::Instant;
use vmferry_fault::{Class, Kind as _};

use super::trouble::Trouble;
use crate::Kind;

/// Tries at most.
const TRIES: u32 = 5;
/// No further try is begun after this long.
const PATIENCE: Duration = Duration::from_mins(1);
/// The wait after the first try; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Does `work` until it succeeds, fails for good, or patience ends. It is given the number of the try, from 0. For calls that may be made twice.
pub(crate) async fn persist<T>(mut work: impl AsyncFnMut(u32) -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut tries = Tries::new();
    loop {
        match work(tries.failed).await {
            Err(trouble) => tries.again(trouble).await?,
            outcome => return outcome,
        }
    }
}

/// The tries of one call, for where [`persist`] cannot be used: its futures are not known to be `Send` when they borrow.
#[derive(Debug)]
pub(crate) struct Tries {
    start: Instant,
    failed: u32,
}

impl Tries {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            failed: 0,
        }
    }

    /// Waits until it is time to try again after `trouble`, or gives it back where that would not help any more.
    pub(crate) async fn again(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.failed += 1;
        let wait = trouble.wait.unwrap_or(FIRST_WAIT * 2_u32.pow(self.failed - 1));
        let wait = wait.mul_f64(rand::random_range(0.5..1.5));
        if !is_passing(trouble.kind) || self.failed == TRIES || self.start.elapsed() + wait > PATIENCE {
            return Err(trouble);
        }
        let attempt = self.failed;
        tracing::debug!(attempt, kind = ?trouble.kind, "the storage server is asked again: {}", trouble.detail);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Whether the same call may succeed a moment later.
fn is_passing(kind: Kind) -> bool {
    kind.class() == Class::Retryable && matches!(kind, Kind::Unreachable | Kind::Busy | Kind::Failed)
}
