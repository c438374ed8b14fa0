//! How often the worker of a job was lost in a row without having got on: what is lost each time at the same place, for want
//! of memory or of an image that starts, must not be started for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use vmferry_engine::port::JobId;

/// The losses of jobs. Kept in memory only: whoever takes over counts anew, and comes to the same end.
#[derive(Debug, Default)]
pub(super) struct Losses {
    jobs: Mutex<HashMap<JobId, Loss>>,
}

#[derive(Debug)]
struct Loss {
    run: String,
    done: u64,
    count: u32,
}

impl Losses {
    /// Notes that a run was lost when `done` bytes were done, and says how many were lost in a row without getting on.
    pub(super) fn note(&self, id: &JobId, run: &str, done: u64) -> u32 {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = jobs.entry(id.clone()).or_insert_with(|| Loss {
            run: String::new(),
            done: 0,
            count: 0,
        });
        if loss.run == run {
            return loss.count;
        }
        run.clone_into(&mut loss.run);
        loss.count = if done > loss.done { 1 } else { loss.count + 1 };
        loss.done = loss.done.max(done);
        loss.count
    }

    /// Forgets a job.
    pub(super) fn forget(&self, id: &JobId) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_losses_in_a_row_count_and_each_once() {
        let losses = Losses::default();
        let id = JobId("export-0-0".into());
        let note = |run: &str, done| losses.note(&id, run, done);
        assert_eq!([note("a", 0), note("a", 0), note("b", 0), note("c", 0)], [1, 1, 2, 3]);
        assert_eq!([note("d", 5), note("e", 5), note("f", 4), note("g", 6)], [1, 2, 3, 1]);
        losses.forget(&id);
        assert_eq!(note("h", 0), 1);
    }
}
