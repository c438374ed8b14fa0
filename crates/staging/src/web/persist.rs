//! Trying again.

use std::time::Duration;

use tokio::time::Instant;
use vmferry_fault::{Class, Kind as _};

use super::trouble::Trouble;
use crate::Kind;

/// Tries at most.
const TRIES: u32 = 5;
/// No further try is begun after this long, and the time that one answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The wait after the first try; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The tries of one call that may be made twice. (Not a function around the call: its future would not be known to be `Send`.)
#[derive(Debug)]
pub(crate) struct Tries {
    start: Instant,
    patience: Duration,
    failed: u32,
}

impl Tries {
    pub(crate) fn new() -> Self {
        Self::of_calls_of(Duration::ZERO)
    }

    /// The tries of a call whose answer may take this long.
    pub(crate) fn of_calls_of(answer: Duration) -> Self {
        Self {
            start: Instant::now(),
            patience: PATIENCE + answer,
            failed: 0,
        }
    }

    /// Waits until it is time to try again after `trouble`, or gives it back where that would not help any more.
    pub(crate) async fn again(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.failed += 1;
        // Never earlier than the server asked for.
        let wait = match trouble.wait {
            Some(asked) => asked.mul_f64(rand::random_range(1.0..1.5)),
            None => (FIRST_WAIT * 2_u32.pow(self.failed - 1)).mul_f64(rand::random_range(0.5..1.5)),
        };
        if !is_passing(trouble.kind) || self.failed == TRIES || self.start.elapsed() + wait > self.patience {
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
