//! Deletion: what the migration made is removed, then the finalizer. It stays for as long as something is left.

use vmferry_api::{Phase, Time};

use crate::cleanup;
use crate::engine::Next;
use crate::failure::{self, Trouble};
use crate::port::StoreError;
use crate::run::Run;

/// One step of a migration that is being deleted, in whatever phase it is.
pub(crate) async fn step(run: &mut Run) -> Result<Next, StoreError> {
    if !run.held() {
        return Ok(Next::Gone);
    }
    let asked = run.migration.metadata.deletion_timestamp.clone();
    if let Some(wait) = run.retry_in()
        && is_ours(run, asked.as_ref())
    {
        return Ok(Next::After(wait));
    }
    run.status.next_retry_time = None;
    match clean(run).await {
        Ok(()) => {
            run.let_go();
            run.save().await?;
            Ok(Next::Gone)
        }
        Err(Trouble::Store(error)) => Err(error),
        Err(Trouble::Failure(failure)) => {
            let next = failure::clean_later(run, asked, "Being deleted", &failure);
            run.save().await?;
            Ok(next)
        }
    }
}

/// Whether the wait that is scheduled was scheduled by the deletion itself: one of the migration is not waited out.
fn is_ours(run: &Run, asked: Option<&Time>) -> bool {
    run.status.last_retry_time.as_ref() > asked
}

/// A migration that came to its end has nothing left. One that is Ready cleans up as its policy says, except that the
/// source VM stays: who deletes the migration before its end may still want it. Any other is undone.
async fn clean(run: &Run) -> Result<(), Trouble> {
    if run.status.completion_time.is_some() {
        return Ok(());
    }
    if run.status.phase == Phase::Ready {
        cleanup::intermediate(run).await?;
        return cleanup::snapshot(run).await;
    }
    cleanup::undo(run).await
}
