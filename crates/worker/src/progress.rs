//! How far a job is.

use std::sync::Arc;

use vmferry_engine::port::{DiskProgress, Job};
use vmferry_mover::Progress;

/// How far each disk of a job is. Whoever holds it may look at any time.
#[derive(Debug, Clone)]
pub struct JobProgress {
    disks: Arc<[Arc<Progress>]>,
}

impl JobProgress {
    /// Of a job that has not begun.
    pub fn new(job: &Job) -> Self {
        let disks = job.disks.iter().map(|_| Arc::default()).collect();
        Self { disks }
    }

    /// One entry for each disk, in order.
    pub fn disks(&self) -> Vec<DiskProgress> {
        let now = |progress: &Arc<Progress>| {
            let now = progress.snapshot();
            DiskProgress {
                done: now.done,
                total: now.total,
                rate: now.rate,
            }
        };
        self.disks.iter().map(now).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Progress>> {
        self.disks.iter()
    }
}
