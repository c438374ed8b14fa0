//! Memory for the buffers of transfers, shared fairly.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many transfers run at once, at most.
pub(crate) const AT_ONCE: usize = 4;
/// What all of them have together, in bytes.
const ALL: u64 = 128 << 20;
/// The most that one of them has a use for.
const MOST: u64 = 64 << 20;
/// What permits count.
const UNIT: u64 = 1 << 20;

/// The memory that all transfers of a process have for their buffers: 128 MiB, in equal shares, for four of them at once.
/// Those that come later wait.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
}

/// A part of the budget. It goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    /// Bytes.
    pub(crate) memory: u64,
    _units: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            units: Arc::new(Semaphore::new((ALL / UNIT) as usize)),
        }
    }
}

impl Budget {
    /// Waits for the share of one of `count` transfers that are to run side by side. Where others are under way it may be
    /// smaller: never less than a fourth of all.
    pub(crate) async fn share(&self, count: usize) -> Share {
        let least = ALL / AT_ONCE as u64;
        let fair = (ALL / count.clamp(1, AT_ONCE) as u64).min(MOST) / UNIT * UNIT;
        if let Ok(units) = Arc::clone(&self.units).try_acquire_many_owned((fair / UNIT) as u32) {
            return Share {
                memory: fair,
                _units: Some(units),
            };
        }
        // It is never closed; were it, a share would still have its size.
        let units = Arc::clone(&self.units).acquire_many_owned((least / UNIT) as u32);
        Share {
            memory: least,
            _units: units.await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn shares_are_equal_and_never_more_than_there_is() {
        let budget = Budget::default();
        for count in 1..9 {
            let at_once = count.min(AT_ONCE);
            let mut shares = Vec::new();
            for _ in 0..at_once {
                shares.push(budget.share(count).await);
            }
            let sizes: Vec<u64> = shares.iter().map(|share| share.memory).collect();
            assert!(sizes.iter().all(|size| *size == sizes[0]), "{count}: {sizes:?}");
            assert!(sizes.iter().sum::<u64>() <= ALL && sizes[0] <= MOST);
        }
    }

    #[tokio::test]
    async fn who_comes_late_waits_or_takes_less() {
        let budget = Budget::default();
        let (first, second) = (budget.share(1).await, budget.share(3).await);
        assert_eq!((first.memory, second.memory), (64 << 20, 42 << 20));
        let late = budget.share(1);
        let waited = tokio::time::timeout(Duration::from_millis(20), late).await;
        assert!(waited.is_err(), "there were 22 MiB left");
        drop(second);
        let third = budget.share(4).await;
        assert_eq!((third.memory, budget.share(1).await.memory), (32 << 20, 32 << 20));
        drop(first);
    }
}
