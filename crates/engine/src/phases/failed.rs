//! Failed: what was made is undone, from the last phase to the first. The phase says Failed at once; `completionTime` and
//! the condition Failed come only when all is clean, so that a crash in between goes on undoing.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::condition;

use crate::cleanup;
use crate::failure::Trouble;
use crate::run::{Outcome, Run};

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        cleanup::undo(run).await?;
        let cause = run.condition_message(condition::FAILED).unwrap_or_default();
        Ok(Outcome::Done("MigrationFailed", cause))
    }
    .boxed()
}
