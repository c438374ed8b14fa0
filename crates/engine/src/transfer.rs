//! How far a data phase is, and how the status says so.

use std::fmt::Write;
use std::time::Duration;

use vmferry_api::DiskStatus;

use crate::failure::{Failure, backoff, between, cleanup_backoff};
use crate::phase;
use crate::port::{DiskProgress, DiskReport, Job, JobId, JobState};
use crate::run::Run;
use crate::text;

/// The reason of the condition of a data phase whose job is refused for now.
const REFUSING: &str = "ExecutorBusy";

/// How far a data phase is.
pub(crate) struct Progress {
    /// All disks together, in percent.
    pub percent: u8,
    /// Bytes of all disks.
    pub done: i64,
    /// The disk that is under way, named where there are several: ` vda`.
    disk: String,
    current: DiskProgress,
}

impl Progress {
    /// `Uploading disk (45% complete, 4.5GB/10GB, ETA: 15m)`, or `Uploading disk vda (…` of several.
    pub(crate) fn sentence(&self, verb: &str) -> String {
        let DiskProgress { done, total, .. } = self.current;
        if total == 0 {
            return format!("{verb} disk{} ({})", self.disk, text::size(done));
        }
        let mut out = format!(
            "{verb} disk{} ({}% complete, {}/{}",
            self.disk,
            share(done, total),
            text::size(done),
            text::size(total)
        );
        if let Some(seconds) = eta(&self.current) {
            let eta = text::duration(std::time::Duration::from_secs(seconds));
            let _ = write!(out, ", ETA: {eta}");
        }
        out.push(')');
        out
    }
}

/// How a job is doing. An executor that cannot be asked says nothing about the job, which goes on: that is no failure of
/// the migration and costs no attempt; the message says so, and it is asked again.
pub(crate) async fn observe(run: &mut Run, id: &JobId) -> Option<JobState> {
    match run.ports.executor.observe(id).await {
        Ok(state) => Some(state),
        Err(error) => {
            run.status.message = Some(error.to_string());
            None
        }
    }
}

/// How long a job may be refused by an executor that is only busy, until that counts as a failure.
const REFUSED: Duration = Duration::from_mins(10);

/// Starts a job. An executor that is busy, or cannot be reached, costs no attempt for a while: the condition `waits` says so,
/// and the waits grow. `None` is that it was started.
pub(crate) async fn start(run: &mut Run, job: &Job, waits: &str) -> Result<Option<Duration>, Failure> {
    let Err(error) = run.ports.executor.start(job).await else {
        return Ok(None);
    };
    let told = error.to_string();
    if !error.passes {
        return Err(error.into());
    }
    run.condition(waits, false, REFUSING, told.clone());
    let refused = run
        .since(waits)
        .map_or(Duration::ZERO, |since| between(&since, &run.now()));
    let refused = refused.min(tried(run));
    if refused >= REFUSED {
        return Err(error.into());
    }
    run.status.message = Some(format!("{told}; trying again"));
    Ok(Some(cleanup_backoff(&run.spec().retry_policy, refused)))
}

/// For how long this attempt has been under way, where it is not the first.
fn tried(run: &Run) -> Duration {
    let Some(failed) = run.status.last_retry_time.as_ref().filter(|_| run.attempts() > 0) else {
        return Duration::MAX;
    };
    between(failed, &run.now()).saturating_sub(backoff(&run.spec().retry_policy, run.attempts() - 1))
}

/// Takes the progress of a job into the status: of each disk, and of the whole migration within the phase's span.
pub(crate) fn record(run: &mut Run, disks: &[DiskProgress]) -> Progress {
    for (status, progress) in run.status.disks.iter_mut().zip(disks) {
        status.bytes_transferred = i64::try_from(progress.done).ok();
        status.bytes_per_second = i64::try_from(progress.rate).ok();
        status.eta_seconds = eta(progress).and_then(|seconds| i64::try_from(seconds).ok());
        if progress.total > 0 {
            status.staged_bytes = i64::try_from(progress.total).ok();
        }
    }
    let percent = percent(run);
    let (from, to) = phase::row(run.status.phase).progress;
    let span = u32::from(to - from);
    run.progress(from + (span * u32::from(percent) / 100) as u8);
    let current = disks
        .iter()
        .position(|disk| disk.total == 0 || disk.done < disk.total)
        .unwrap_or(disks.len().saturating_sub(1));
    let several = run.status.disks.len() > 1;
    let name = |disk: &DiskStatus| several.then(|| format!(" {}", disk.name));
    run.status.rate = rate(disks);
    Progress {
        percent,
        done: run.status.disks.iter().filter_map(|disk| disk.bytes_transferred).sum(),
        disk: run.status.disks.get(current).and_then(name).unwrap_or_default(),
        current: disks.get(current).copied().unwrap_or_default(),
    }
}

/// How far the current direction is by what is recorded, in percent. A disk whose staged length is not known yet weighs as
/// much as its capacity, and counts as not begun.
pub(crate) fn percent(run: &Run) -> u8 {
    let mut done = 0_u128;
    let mut total = 0_u128;
    for disk in &run.status.disks {
        let positive = |value: Option<i64>| u128::try_from(value.unwrap_or(0)).unwrap_or(0);
        match disk.staged_bytes {
            Some(staged) => {
                total += positive(Some(staged));
                done += positive(disk.bytes_transferred).min(positive(Some(staged)));
            }
            None => total += positive(disk.capacity_bytes),
        }
    }
    u8::try_from(done * 100 / total.max(1)).unwrap_or(100).min(100)
}

/// A job reports on each of its disks.
pub(crate) fn check_count(run: &Run, reports: &[DiskReport]) -> Result<(), Failure> {
    if reports.len() == run.status.disks.len() {
        return Ok(());
    }
    let text = format!(
        "the job reports on {} of {} disks",
        reports.len(),
        run.status.disks.len()
    );
    Err(Failure::bug(text))
}

/// The rate of all disks together.
fn rate(disks: &[DiskProgress]) -> Option<String> {
    let bytes: u64 = disks.iter().map(|disk| disk.rate).sum();
    (bytes > 0).then(|| format!("{}/s", text::size(bytes)))
}

/// No byte moves any more.
pub(crate) fn stand_still(run: &mut Run) {
    run.status.rate = None;
    for disk in &mut run.status.disks {
        disk.bytes_per_second = None;
        disk.eta_seconds = None;
    }
}

fn share(done: u64, total: u64) -> u64 {
    (u128::from(done.min(total)) * 100 / u128::from(total.max(1))) as u64
}

fn eta(progress: &DiskProgress) -> Option<u64> {
    let left = progress.total.saturating_sub(progress.done);
    (progress.total > 0 && progress.rate > 0 && left > 0).then(|| left.div_ceil(progress.rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_is_the_references() {
        let progress = |disk: &str, done, total, rate| Progress {
            percent: 0,
            done: 0,
            disk: disk.into(),
            current: DiskProgress { done, total, rate },
        };
        assert_eq!(
            progress("", 4_500_000_000, 10_000_000_000, 0).sentence("Uploading"),
            "Uploading disk (45% complete, 4.5GB/10GB)"
        );
        assert_eq!(
            progress(" vda", 5_000_000_000, 10_000_000_000, 10_000_000).sentence("Uploading"),
            "Uploading disk vda (50% complete, 5GB/10GB, ETA: 8m20s)"
        );
        assert_eq!(progress("", 7, 0, 3).sentence("Downloading"), "Downloading disk (7B)");
    }

    #[test]
    fn the_rate_is_that_of_all_disks() {
        let disk = |rate| DiskProgress {
            rate,
            ..DiskProgress::default()
        };
        assert_eq!(
            rate(&[disk(100_000_000), disk(18_200_000)]).as_deref(),
            Some("118.2MB/s")
        );
        assert_eq!(rate(&[disk(0)]), None);
    }
}
