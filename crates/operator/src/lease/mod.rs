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
//! each save of a migration, saves carry the version that they were decided on, and what is made carries the migration's UID.

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
/// How long one call may take: a server under load may be slow, and there is time for another.
const CALL: Duration = Duration::from_secs(5);
/// The wait after a call that failed.
const PAUSE: Duration = Duration::from_millis(250);

/// After how long without a look at the lease something is wrong with this process.
const HUNG: Duration = Duration::from_mins(1);

/// Whether this process leads.
#[derive(Debug, Clone)]
pub struct Leadership(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy)]
struct State {
    until: Until,
    /// When the lease was last looked at.
    looked: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Never,
    Time(Instant),
    Forever,
}

impl Leadership {
    /// One that has yet to be won.
    pub fn none() -> Self {
        Self::of(Until::Never)
    }

    /// One without an election: there is only one replica.
    pub fn always() -> Self {
        Self::of(Until::Forever)
    }

    fn of(until: Until) -> Self {
        let looked = Instant::now();
        Self(Arc::new(Mutex::new(State { until, looked })))
    }

    /// Whether this process leads at this moment.
    pub fn holds(&self) -> bool {
        self.holds_at(Instant::now())
    }

    fn holds_at(&self, now: Instant) -> bool {
        match self.lock().until {
            Until::Never => false,
            Until::Time(until) => now < until,
            Until::Forever => true,
        }
    }

    /// Whether this process takes part in the election as it should.
    pub(crate) fn is_looked_after(&self) -> bool {
        let state = self.lock();
        matches!(state.until, Until::Forever) || state.looked.elapsed() < HUNG
    }

    /// The lease is about to be looked at.
    fn looks(&self) {
        self.lock().looked = Instant::now();
    }

    /// It was renewed by a call that began at this time.
    fn renewed(&self, began: Instant) {
        self.lock().until = Until::Time(began + DEADLINE);
    }

    fn lost(&self) {
        self.lock().until = Until::Never;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_the_own_clock_before_another_may_start() {
        let leadership = Leadership::none();
        assert!(!leadership.holds());
        let began = Instant::now();
        leadership.renewed(began);
        assert!(leadership.holds_at(began + DEADLINE - Duration::from_millis(1)));
        assert!(!leadership.holds_at(began + DEADLINE));
        assert!(DEADLINE + EVERY <= DURATION);
        leadership.renewed(began + EVERY);
        assert!(leadership.holds_at(began + DEADLINE));
        leadership.lost();
        assert!(!leadership.holds_at(began));
        assert!(Leadership::always().holds());
    }
}
