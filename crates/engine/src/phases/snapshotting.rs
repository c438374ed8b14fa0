//! Snapshotting: one point in time of all disks.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{condition, event};

use crate::failure::{Failure, Trouble};
use crate::run::{Outcome, Run};

/// Takes the state that holds for this migration, if there is one (a crash came between freezing and recording). Otherwise
/// removes what is left of one that does not hold any more, and freezes anew.
pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        let source = run.source().await?;
        let vm = source.vm().await?;
        let keep = !run.spec().cleanup_policy.delete_snapshot;
        let failure = |fault| Failure::source(&fault);
        let held = source.host.frozen(&vm, &run.owner).await.map_err(failure)?;
        let frozen = if let Some(frozen) = held {
            frozen
        } else {
            let released = source.host.release(&source.selector, &run.owner, false).await;
            released.map_err(failure)?;
            source.host.freeze(&vm, &run.owner, keep).await.map_err(failure)?
        };
        run.status.snapshot_id = Some(frozen.id.0.clone());
        let created = format!("Snapshot {} created", frozen.id.0);
        let text = format!("{created}: {}", frozen.detail);
        run.tell(event::SNAPSHOT_CREATED, created);
        run.tell(event::EXPORT_STARTED, "Disk export started");
        Ok(Outcome::Done("SnapshotCreated", text))
    }
    .boxed()
}

/// Nothing is frozen before validation succeeded, so a source that could never be opened is not needed here either.
pub(crate) fn undo(run: &Run) -> BoxFuture<'_, Result<(), Trouble>> {
    async move {
        if !run.holds(condition::VALIDATED) {
            return Ok(());
        }
        let source = run.source().await.map_err(|trouble| needed(trouble, run))?;
        let released = source.host.release(&source.selector, &run.owner, false).await;
        released.map_err(|fault| Failure::source(&fault).into())
    }
    .boxed()
}

/// Says what is left when the source cannot be opened.
fn needed(trouble: Trouble, run: &Run) -> Trouble {
    match trouble {
        Trouble::Failure(mut failure) => {
            let snapshot = run.status.snapshot_id.as_deref().unwrap_or("that may exist");
            failure.message = format!(
                "cannot delete snapshot {snapshot} of the source VM: {}",
                failure.message
            );
            failure.into()
        }
        store @ Trouble::Store(_) => store,
    }
}
