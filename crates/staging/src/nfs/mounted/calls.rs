//! Calls that block, and may do so for ever: what a hard mount does when its server is gone.
//!
//! Each is given up after a while, but its thread cannot be. So there is a bound on how many may hang; from there on, calls fail at
//! once instead of adding to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinError;

/// How many calls may hang.
const MOST: usize = 8;

/// The calls to one mount.
#[derive(Debug, Default)]
pub(super) struct Calls {
    hanging: Arc<AtomicUsize>,
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum Abandoned {
    /// It took too long, and goes on.
    Late,
    /// So many others hang that it was not begun.
    Hanging(usize),
    /// It panicked.
    Panicked(JoinError),
}

impl Calls {
    /// Runs `work` where it may block, for at most `limit`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let hanging = self.hanging.load(Ordering::SeqCst);
        if hanging >= MOST {
            return Err(Abandoned::Hanging(hanging));
        }
        let call = Arc::new(Call {
            state: AtomicU8::new(RUNNING),
            hanging: Arc::clone(&self.hanging),
        });
        // Whoever waits may go away, too.
        let _waiting = Waiting(Arc::clone(&call));
        let running = tokio::task::spawn_blocking(move || {
            let _ended = Ended(call);
            work()
        });
        match tokio::time::timeout(limit, running).await {
            Ok(outcome) => outcome.map_err(Abandoned::Panicked),
            Err(_) => Err(Abandoned::Late),
        }
    }
}

const RUNNING: u8 = 0;
const LEFT: u8 = 1;
const ENDED: u8 = 2;

#[derive(Debug)]
struct Call {
    state: AtomicU8,
    hanging: Arc<AtomicUsize>,
}

/// Dropped when nobody waits any more.
struct Waiting(Arc<Call>);

impl Drop for Waiting {
    fn drop(&mut self) {
        // Counted first: the one who ends it may be as fast.
        self.0.hanging.fetch_add(1, Ordering::SeqCst);
        if self.0.state.swap(LEFT, Ordering::SeqCst) == ENDED {
            self.0.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Dropped when the call ends.
struct Ended(Arc<Call>);

impl Drop for Ended {
    fn drop(&mut self) {
        if self.0.state.swap(ENDED, Ordering::SeqCst) == LEFT {
            self.0.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn calls_that_hang_are_bounded_and_forgotten_when_they_end() {
        let calls = Calls::default();
        let mut releases = Vec::new();
        for _ in 0..MOST {
            let (release, released) = mpsc::channel::<()>();
            let outcome = calls.run(Duration::from_millis(10), move || released.recv()).await;
            assert!(matches!(outcome, Err(Abandoned::Late)));
            releases.push(release);
        }
        let outcome = calls.run(Duration::from_mins(1), || ()).await;
        assert!(matches!(outcome, Err(Abandoned::Hanging(MOST))));
        drop(releases);
        let started = std::time::Instant::now();
        while calls.run(Duration::from_mins(1), || ()).await.is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "the calls that ended still count"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(
            calls.run(Duration::from_mins(1), || panic!("on purpose")).await,
            Err::<(), _>(Abandoned::Panicked(_))
        ));
        for _ in 0..2 * MOST {
            calls.run(Duration::from_mins(1), || ()).await.unwrap();
        }
    }
}
