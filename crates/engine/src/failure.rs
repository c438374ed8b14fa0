//! Failures of a migration, and what becomes of it.
//!
//! | failure | what follows |
//! | --- | --- |
//! | retryable | the same phase again, after a back-off, from what is recorded |
//! | a resource that was validated is not there | the same: it may be applied again |
//! | frozen state gone | back to Snapshotting; counts as a retry, but goes at once: waiting would not bring the state back |
//! | staged object corrupt | back to Exporting, after a back-off |
//! | permanent, bug, or attempts used up | Failed: what was made is undone |
//!
//! Clean-up itself (in Ready, in Failed, on deletion) is never given up: it is tried again with a growing back-off.

use std::time::Duration;

use vmferry_api::names::{condition, event};
use vmferry_api::{Phase, RetryPolicy, Time};
use vmferry_fault::Fault;

use crate::engine::Next;
use crate::phase::{Row, table};
use crate::phases::failed;
use crate::port::{EventType, ExecutorError, FailureKind, JobFailure, StoreError};
use crate::run::Run;
use crate::text;
use crate::transfer;

/// Why a step did not succeed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The store failed: nothing can be recorded, the caller tries again.
    Store(StoreError),
    /// The migration failed: recorded in its status.
    Failure(Failure),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A failure of the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The reason of the condition.
    pub reason: &'static str,
    /// What was tried, on what, the answer, and what to do next.
    pub message: String,
    /// Whether it is about a resource that is not there and may yet be applied.
    pub may_come: bool,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            may_come: false,
        }
    }

    /// A resource that a reference names is not there.
    pub(crate) fn missing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            may_come: true,
            ..Self::permanent(reason, message)
        }
    }

    /// One that only a person can change.
    pub(crate) fn permanent(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Permanent, reason, message)
    }

    /// vmferry is wrong.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Bug, "InternalError", message)
    }

    /// What the source hypervisor answered.
    pub(crate) fn source(fault: &Fault<vmferry_provider::Kind>) -> Self {
        use vmferry_provider::Kind;
        let kind = match fault.kind() {
            Kind::FrozenStateGone => FailureKind::FrozenStateGone,
            _ => fault.class().into(),
        };
        let reason = match fault.kind() {
            Kind::NotFound => "SourceNotFound",
            Kind::Unsupported => "UnsupportedSource",
            other => host_reason(other),
        };
        Self::new(kind, reason, fault.to_string())
    }

    /// What the target hypervisor answered.
    pub(crate) fn target(fault: &Fault<vmferry_provider::Kind>) -> Self {
        use vmferry_provider::Kind;
        let reason = match fault.kind() {
            Kind::NotFound => "StorageNotFound",
            Kind::Unsupported => "UnsupportedFormat",
            other => host_reason(other),
        };
        Self::new(fault.class().into(), reason, fault.to_string())
    }

    /// What the staging store answered.
    pub(crate) fn staging(fault: &Fault<vmferry_staging::Kind>) -> Self {
        use vmferry_staging::Kind;
        let reason = match fault.kind() {
            Kind::NotFound => "StorageNotFound",
            Kind::NameTaken => "StagedNameTaken",
            Kind::Unreachable => "StorageUnreachable",
            Kind::Denied => "AuthenticationFailed",
            Kind::Untrusted => "StorageUntrusted",
            Kind::Invalid => "StorageInvalid",
            Kind::Unfit => "StorageUnfit",
            Kind::Busy => "StorageBusy",
            Kind::NoSpace => "InsufficientSpace",
            Kind::Bug => "InternalError",
            _ => "StorageFailed",
        };
        Self::new(fault.class().into(), reason, fault.to_string())
    }

    /// A job that ended without success.
    pub(crate) fn job(failure: JobFailure, reason: &'static str) -> Self {
        let reason = match failure.kind {
            FailureKind::FrozenStateGone => "FrozenStateGone",
            FailureKind::StagedCorrupt => "StagedCorrupt",
            FailureKind::Bug => "InternalError",
            FailureKind::Retryable | FailureKind::Permanent => reason,
        };
        Self::new(failure.kind, reason, failure.message)
    }
}

impl From<ExecutorError> for Trouble {
    fn from(error: ExecutorError) -> Self {
        Failure::from(error).into()
    }
}

impl From<ExecutorError> for Failure {
    fn from(error: ExecutorError) -> Self {
        Self::new(FailureKind::Retryable, "ExecutorFailed", error.to_string())
    }
}

fn host_reason(kind: vmferry_provider::Kind) -> &'static str {
    use vmferry_provider::Kind;
    match kind {
        Kind::NameTaken => "TargetNameTaken",
        Kind::Unreachable => "HostUnreachable",
        Kind::Denied => "AuthenticationFailed",
        Kind::Untrusted => "HostKeyMismatch",
        Kind::Invalid => "InvalidValue",
        Kind::Hostile => "HostileBackingFile",
        Kind::NoSpace => "InsufficientSpace",
        Kind::FrozenStateGone => "FrozenStateGone",
        Kind::Busy => "Busy",
        Kind::Bug => "InternalError",
        _ => "HostFailed",
    }
}

/// The wait before the retry that follows `attempts` earlier ones: `backoffDuration` × 2^attempts, capped.
pub(crate) fn backoff(policy: &RetryPolicy, attempts: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempts.min(31));
    policy
        .backoff_duration
        .0
        .saturating_mul(factor)
        .min(policy.max_backoff_duration.0)
}

/// The wait before a clean-up is tried again that has been failing for `elapsed`: about as long as it has been failing, so
/// that the wait doubles each time without a count to keep; from a few seconds up to `maxBackoffDuration`.
pub(crate) fn cleanup_backoff(policy: &RetryPolicy, elapsed: Duration) -> Duration {
    const FIRST: Duration = Duration::from_secs(5);
    const LEAST: Duration = Duration::from_secs(1);
    let least = policy.backoff_duration.0.clamp(LEAST, FIRST);
    let most = policy.max_backoff_duration.0.max(least);
    elapsed.clamp(least, most)
}

/// Takes a failure of the phase `row` into the status and says when to go on. The caller saves.
pub(crate) fn take(run: &mut Run, row: &Row, failure: Failure) -> Next {
    transfer::stand_still(run);
    if matches!(row.phase, Phase::Ready | Phase::Failed) {
        let since = row.condition.and_then(|name| run.since(name));
        let cause = match row.phase {
            Phase::Failed => run.condition_message(condition::FAILED).unwrap_or_default(),
            _ => format!("VM {} is at the target", run.spec().target_name),
        };
        return clean_later(run, since, &cause, &failure);
    }
    // What was there when the migration was validated was taken away by mistake, or is being replaced.
    let comes_back = failure.may_come && within(row, Phase::Snapshotting, Phase::ValidatingTarget);
    match failure.kind {
        FailureKind::Permanent | FailureKind::Bug if !comes_back => fail(run, row, failure),
        _ if run.attempts() >= run.spec().retry_policy.max_attempts => exhausted(run, row, failure),
        FailureKind::FrozenStateGone if within(row, Phase::Snapshotting, Phase::Transferring) => {
            rewind(run, row, Phase::Snapshotting, &failure);
            run.status.snapshot_id = None;
            retry(run, row, failure, Duration::ZERO)
        }
        FailureKind::StagedCorrupt if within(row, Phase::Transferring, Phase::Importing) => {
            rewind(run, row, Phase::Exporting, &failure);
            let wait = backoff(&run.spec().retry_policy, run.attempts());
            retry(run, row, failure, wait)
        }
        _ => {
            let wait = backoff(&run.spec().retry_policy, run.attempts());
            retry(run, row, failure, wait)
        }
    }
}

/// Schedules the clean-up again: of Ready, of Failed, or before deletion.
pub(crate) fn clean_later(run: &mut Run, since: Option<Time>, cause: &str, failure: &Failure) -> Next {
    let now = run.now();
    let elapsed = since.map_or(Duration::ZERO, |since| between(&since, &now));
    let wait = cleanup_backoff(&run.spec().retry_policy, elapsed);
    let text = format!(
        "{cause}; clean-up failed, retry scheduled in {}: {}",
        text::duration(wait),
        failure.message
    );
    run.status.message = Some(text.clone());
    run.event(EventType::Warning, event::RETRY_SCHEDULED, text);
    run.retry_at(wait);
    Next::After(wait)
}

fn retry(run: &mut Run, row: &Row, failure: Failure, wait: Duration) -> Next {
    run.status.retry_attempts = Some(run.attempts() + 1);
    run.retry_at(wait);
    let text = format!(
        "Migration failed, retry scheduled in {}: {}",
        text::duration(wait),
        failure.message
    );
    run.status.message = Some(text.clone());
    run.event(EventType::Warning, event::RETRY_SCHEDULED, text);
    mark(run, row, failure.reason, failure.message);
    if wait.is_zero() { Next::Now } else { Next::After(wait) }
}

fn exhausted(run: &mut Run, row: &Row, failure: Failure) -> Next {
    let max = run.spec().retry_policy.max_attempts;
    run.event(
        EventType::Warning,
        event::MAX_RETRIES_EXCEEDED,
        format!("Maximum retry attempts ({max}) exceeded"),
    );
    fail(run, row, failure)
}

/// On to Failed, which undoes. The condition Failed keeps the message; it becomes True when all is clean.
fn fail(run: &mut Run, row: &Row, failure: Failure) -> Next {
    let text = format!("Migration failed: {}", failure.message);
    run.event(EventType::Error, event::MIGRATION_FAILED, text.clone());
    let reason = match failure.reason {
        failed::CANCELLED => failed::CANCELLING,
        _ => failed::CLEANING_UP,
    };
    mark(run, row, failure.reason, failure.message);
    run.condition(condition::FAILED, false, reason, text.clone());
    run.status.phase = Phase::Failed;
    run.status.next_retry_time = None;
    run.status.message = Some(text);
    Next::Now
}

/// The phase's condition is False, with the reason.
fn mark(run: &mut Run, row: &Row, reason: &str, message: String) {
    if row.phase == Phase::Transferring {
        run.condition(condition::TRANSFERRING, false, reason, message.clone());
    }
    if let Some(name) = row.condition {
        run.condition(name, false, reason, message);
    }
}

fn within(row: &Row, first: Phase, last: Phase) -> bool {
    (first as usize..=last as usize).contains(&(row.phase as usize))
}

/// Back to an earlier phase: what the phases since then reported holds no more. What they made is removed by
/// [`exporting`](crate::phases::exporting), through which every way leads again.
fn rewind(run: &mut Run, row: &Row, to: Phase, failure: &Failure) {
    for name in table()
        .iter()
        .filter(|each| within(each, to, row.phase))
        .filter_map(|each| each.condition)
    {
        if run.has(name) {
            run.condition(name, false, failure.reason, failure.message.clone());
        }
    }
    for disk in &mut run.status.disks {
        disk.checksum = None;
        disk.content_digest = None;
        disk.staged_bytes = None;
        disk.bytes_transferred = None;
    }
    run.status.checksum = None;
    run.status.phase = to;
}

/// From `earlier` to `later`; zero where that is backwards.
pub(crate) fn between(earlier: &Time, later: &Time) -> Duration {
    Duration::try_from(later.0.duration_since(earlier.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmferry_api::GoDuration;

    fn policy(first: u64, most: u64) -> RetryPolicy {
        RetryPolicy {
            max_attempts: 3,
            backoff_duration: GoDuration(Duration::from_secs(first)),
            max_backoff_duration: GoDuration(Duration::from_secs(most)),
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap() {
        let minutes: Vec<_> = (0..6)
            .map(|attempts| backoff(&RetryPolicy::default(), attempts).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [5, 10, 20, 30, 30, 30]);
        assert_eq!(backoff(&policy(300, 1800), u32::MAX), Duration::from_mins(30));
        assert_eq!(backoff(&policy(0, 1800), 7), Duration::ZERO);
        assert_eq!(backoff(&policy(60, 10), 0), Duration::from_secs(10));
    }

    #[test]
    fn a_failing_clean_up_waits_longer_each_time_and_never_spins() {
        let mut elapsed = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let wait = cleanup_backoff(&policy(300, 60), elapsed);
            waits.push(wait.as_secs());
            elapsed += wait;
        }
        assert_eq!(waits, [5, 5, 10, 20, 40, 60]);
        assert_eq!(cleanup_backoff(&policy(0, 0), elapsed), Duration::from_secs(1));
    }
}
