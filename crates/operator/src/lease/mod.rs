//! Which replica leads: a `coordination.k8s.io/v1` Lease.
//!
//! ```text
//!            renewed every 2 s
//! leader  ───●────●────●──✗ cut off, or dead
//!                      └── 8 s ──▶ it stops by its own clock
//! another              └──── 10 s without a renewal, by its clock ────▶ takes over
//! ```
//!
//! Nobody compares the clocks of two machines: each measures from what it saw itself, with a clock that does not jump. A
//! Lease is no lock, since a process may sleep between looking and acting. So [`Leadership`] is asked before each step and
//! each write, writes carry the version that they were decided on, and what is made carries the migration's UID.

mod elector;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use elector::{Elector, LeaseSettings};

/// How long a lease lasts that nobody renews.
const DURATION: Duration = Duration::from_secs(10);
/// How often it is renewed, and how often the others look at it.
const EVERY: Duration = Duration::from_secs(2);
/// How long after its last renewal the leader stops: some time before another may start.
const DEADLINE: Duration = Duration::from_secs(8);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);

/// Whether this process leads.
#[derive(Debug, Clone)]
pub struct Leadership(Arc<Mutex<Until>>);

#[derive(Debug, Clone, Copy)]
enum Until {
    Never,
    Time(Instant),
    Forever,
}

impl Leadership {
    /// One that has yet to be won.
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(Until::Never)))
    }

    /// One without an election: there is only one replica.
    pub fn always() -> Self {
        Self(Arc::new(Mutex::new(Until::Forever)))
    }

    /// Whether this process leads at this moment.
    pub fn holds(&self) -> bool {
        match *self.lock() {
            Until::Never => false,
            Until::Time(until) => Instant::now() < until,
            Until::Forever => true,
        }
    }

    /// It was renewed by a call that began at this time.
    fn renewed(&self, began: Instant) {
        *self.lock() = Until::Time(began + DEADLINE);
    }

    fn lost(&self) {
        *self.lock() = Until::Never;
    }

    fn lock(&self) -> MutexGuard<'_, Until> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_the_own_clock_before_another_may_start() {
        let leadership = Leadership::none();
        assert!(!leadership.holds());
        leadership.renewed(Instant::now());
        tokio::time::advance(DEADLINE.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert!(leadership.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!leadership.holds());
        assert!(DEADLINE + EVERY <= DURATION);
        assert!(Leadership::always().holds());
    }
}
