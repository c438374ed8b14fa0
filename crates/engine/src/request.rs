//! What the user asks for by annotation: another try, or to give up. Each value acts once; it is kept in the status.
//!
//! | | waiting for a retry | under way | cleaning up after a failure | Failed | Ready |
//! | --- | --- | --- | --- | --- | --- |
//! | retry | it is due now | nothing | at once; then from Pending | from Pending | its clean-up is due now |
//! | cancel | undone, Failed | undone, Failed | no retry follows | nothing | nothing |

use vmferry_api::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY, condition, event};
use vmferry_api::{Phase, VMMigrationStatus};

use crate::failure::Failure;
use crate::phases::failed;
use crate::run::Run;

/// What is to be done about it.
pub(crate) enum Asked {
    /// The phase goes on.
    Nothing,
    /// The migration starts again: that is to be recorded.
    Again,
    /// The migration ends.
    Cancel(Failure),
}

/// Looks at the annotations and notes what was acted on.
pub(crate) fn take(run: &mut Run) -> Asked {
    let (cancel, retry) = (run.migration.cancel_requested(), run.migration.retry_requested());
    if cancel.is_some() {
        run.status.last_handled_cancel = cancel;
        match run.status.phase {
            Phase::Ready => {}
            Phase::Failed => stay_failed(run),
            // A retry that is asked for, too, is for the next step.
            _ => return Asked::Cancel(cancelled()),
        }
    }
    if retry.is_none() {
        return Asked::Nothing;
    }
    run.status.last_handled_retry = retry;
    run.status.next_retry_time = None;
    match (run.status.phase, &run.status.completion_time) {
        (Phase::Failed, Some(_)) => {
            start_over(run);
            Asked::Again
        }
        (Phase::Failed, None) => {
            let cause = run.condition_message(condition::FAILED).unwrap_or_default();
            run.condition(condition::FAILED, false, failed::STARTING_OVER, cause);
            Asked::Nothing
        }
        _ => Asked::Nothing,
    }
}

fn cancelled() -> Failure {
    let text = format!("cancelled, as the annotation {ANNOTATION_CANCEL} asks");
    Failure::permanent(failed::CANCELLED, text)
}

/// A retry that was asked for before the cancellation is not made.
fn stay_failed(run: &mut Run) {
    if run.condition_reason(condition::FAILED) == Some(failed::STARTING_OVER) {
        let cause = run.condition_message(condition::FAILED).unwrap_or_default();
        run.condition(condition::FAILED, false, failed::CANCELLING, cause);
    }
}

/// Back to Pending, as if it were new; nothing is left of the last round. What was acted on, and how many attempts were
/// made, is kept: no job ever gets the name of an earlier one. Of the conditions only Failed stays, as False: the others say
/// what was made, and a list that an old API server is to empty becomes a null there, which it refuses.
pub(crate) fn start_over(run: &mut Run) {
    let message = format!("Starting again, as the annotation {ANNOTATION_RETRY} asks");
    run.tell(event::RETRY_SCHEDULED, message.clone());
    let old = std::mem::take(&mut run.status);
    run.status = VMMigrationStatus {
        earlier_attempts: Some(
            old.earlier_attempts
                .unwrap_or(0)
                .saturating_add(old.retry_attempts.unwrap_or(0))
                .saturating_add(1),
        ),
        last_retry_time: Some(run.now()),
        last_handled_retry: old.last_handled_retry,
        last_handled_cancel: old.last_handled_cancel,
        message: Some(message.clone()),
        conditions: old.conditions,
        ..VMMigrationStatus::default()
    };
    run.status.conditions.retain(|each| each.type_ == condition::FAILED);
    run.condition(condition::FAILED, false, failed::STARTING_OVER, message);
}
