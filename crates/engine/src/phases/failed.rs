//! Failed: what was made is undone, from the last phase to the first. The phase says Failed at once; `completionTime` and
//! the condition Failed come only when all is clean, so that a crash in between goes on undoing.
//!
//! The reason of the condition Failed records what is to follow.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::condition;

use crate::cleanup;
use crate::failure::Trouble;
use crate::request;
use crate::run::{Outcome, Run};

/// It failed by itself, and is being undone.
pub(crate) const CLEANING_UP: &str = "CleaningUp";
/// It was cancelled, and is being undone.
pub(crate) const CANCELLING: &str = "Cancelling";
/// It is being undone, and then starts again.
pub(crate) const STARTING_OVER: &str = "StartingOver";
/// It was cancelled.
pub(crate) const CANCELLED: &str = "Cancelled";

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        cleanup::undo(run).await?;
        let reason = match run.condition_reason(condition::FAILED) {
            Some(STARTING_OVER) => {
                request::start_over(run);
                return Ok(Outcome::Again);
            }
            Some(CANCELLING) => CANCELLED,
            _ => "MigrationFailed",
        };
        let cause = run.condition_message(condition::FAILED).unwrap_or_default();
        Ok(Outcome::Done(reason, cause))
    }
    .boxed()
}
