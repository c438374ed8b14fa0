//! Removing what a migration made. Every act is idempotent and tolerates that there is nothing to remove.

use vmferry_api::Phase;
use vmferry_api::names::condition;
use vmferry_staging::discard;

use crate::failure::{Failure, Trouble};
use crate::phase::table;
use crate::port::{FailureKind, JobId};
use crate::run::Run;

/// Undoes the phases from the last to the first. One that fails does not keep the others from being undone, except that
/// volumes are not deleted below a VM that could not be.
pub(crate) async fn undo(run: &Run) -> Result<(), Trouble> {
    let mut failed: Vec<(Phase, Failure)> = Vec::new();
    for row in table().iter().rev() {
        let Some(revert) = row.revert else { continue };
        let in_use = row.phase == Phase::Importing && failed.iter().any(|(phase, _)| *phase == Phase::Creating);
        if in_use {
            continue;
        }
        match revert(run).await {
            Ok(()) => {}
            Err(Trouble::Failure(failure)) => failed.push((row.phase, failure)),
            Err(store @ Trouble::Store(_)) => return Err(store),
        }
    }
    let messages: Vec<_> = failed.into_iter().map(|(_, failure)| failure.message).collect();
    if messages.is_empty() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Retryable, "CleanupFailed", messages.join("; ")).into())
}

/// Stops the jobs that are recorded, and makes the executor forget those that have ended.
pub(crate) async fn stop_jobs(run: &Run) -> Result<(), Trouble> {
    stop_export(run).await?;
    stop_import(run).await
}

/// Stops the export job that is recorded.
pub(crate) async fn stop_export(run: &Run) -> Result<(), Trouble> {
    stop(run, run.status.export_task_ref.as_ref()).await
}

/// Stops the import job that is recorded.
pub(crate) async fn stop_import(run: &Run) -> Result<(), Trouble> {
    stop(run, run.status.import_task_ref.as_ref()).await
}

async fn stop(run: &Run, id: Option<&String>) -> Result<(), Trouble> {
    match id {
        Some(id) => Ok(run.ports.executor.cancel(&JobId(id.clone())).await?),
        None => Ok(()),
    }
}

/// Removes all that is staged of the recorded disks: uploads, objects, notes. Nothing is staged before disks are recorded. What
/// has one of their names and is not this migration's stays: the export refused it, and said so.
pub(crate) async fn discard_staged(run: &Run) -> Result<(), Trouble> {
    let objects = run.objects()?;
    if objects.is_empty() {
        return Ok(());
    }
    let staging = run.staging().await?;
    let failure = |fault| Failure::staging(&fault);
    for ((key, _), disk) in objects.into_iter().zip(&run.status.disks) {
        let recorded = disk.checksum.is_some();
        let discarded = discard(&*staging, &key, &run.owner.uid, recorded).await;
        discarded.map_err(failure)?;
        // The import's own note, and what a kill left of one on its way.
        staging.abort(&key.import()).await.map_err(failure)?;
        staging.delete_note(&key.import()).await.map_err(failure)?;
    }
    Ok(())
}

/// Deletes the volumes for the recorded disks. None is made before Converting has come to an end.
pub(crate) async fn delete_volumes(run: &Run) -> Result<(), Trouble> {
    if !run.has(condition::CONVERTED) {
        return Ok(());
    }
    let target = run.target().await?;
    for volume in run.volumes(&target) {
        let deleted = target.host.delete_volume(&volume, &run.owner).await;
        deleted.map_err(|fault| Failure::target(&fault))?;
    }
    Ok(())
}

/// The policy for the intermediate storage: all that is staged is removed, or the objects stay and only the notes beside
/// them go, which are of no use any more.
pub(crate) async fn intermediate(run: &Run) -> Result<(), Trouble> {
    stop_jobs(run).await?;
    if run.spec().cleanup_policy.delete_intermediate {
        return discard_staged(run).await;
    }
    let staging = run.staging().await?;
    let failure = |fault| Failure::staging(&fault);
    for (key, _) in run.objects()? {
        for note in [key.import(), key] {
            // What a kill left of a note on its way.
            staging.abort(&note).await.map_err(failure)?;
            staging.delete_note(&note).await.map_err(failure)?;
        }
    }
    Ok(())
}

/// The policy for the snapshot: what came with it is released, and it is deleted or kept.
pub(crate) async fn snapshot(run: &Run) -> Result<(), Trouble> {
    let source = run.source().await?;
    let keep = !run.spec().cleanup_policy.delete_snapshot;
    let released = source.host.release(&source.selector, &run.owner, keep).await;
    released.map_err(|fault| Failure::source(&fault).into())
}
