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
    let start = Instant::now();
    let mut attempt = 0;
    loop {
        let trouble = match work(attempt).await {
            Err(trouble) if is_passing(trouble.kind) => trouble,
            outcome => return outcome,
        };
        attempt += 1;
        let jitter = rand::random_range(0.5..1.5);
        let wait = trouble
            .wait
            .unwrap_or(FIRST_WAIT * 2_u32.pow(attempt - 1))
            .mul_f64(jitter);
        if attempt == TRIES || start.elapsed() + wait > PATIENCE {
            return Err(trouble);
        }
        tracing::debug!(attempt, kind = ?trouble.kind, "the storage server is asked again: {}", trouble.detail);
        tokio::time::sleep(wait).await;
    }
}

/// Whether the same call may succeed a moment later.
fn is_passing(kind: Kind) -> bool {
    kind.class() == Class::Retryable && matches!(kind, Kind::Unreachable | Kind::Busy | Kind::Failed)
}
