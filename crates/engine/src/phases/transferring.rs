//! Transferring: the executor streams the frozen disks into staging; here they are only watched.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{condition, event};
use vmferry_provider::FrozenId;

use crate::cleanup;
use crate::failure::{Failure, Trouble};
use crate::naming;
use crate::port::{Direction, DiskJob, DiskReport, Job, JobId, JobState};
use crate::run::{Outcome, Run};
use crate::text;
use crate::transfer;

/// A job that is not there was lost with its process, or never started: it is started under the id that is recorded. One
/// that failed gets the id of the next attempt.
pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        let recorded = run.status.export_task_ref.clone();
        let id = JobId(recorded.ok_or_else(|| Failure::bug("status.exportTaskRef is not set"))?);
        let Some(state) = transfer::observe(run, &id).await else {
            return Ok(Outcome::Wait(run.config.poll));
        };
        match state {
            JobState::Absent => {
                let job = job(run, id).await?;
                if let Some(wait) = transfer::start(run, &job, condition::TRANSFERRING).await? {
                    return Ok(Outcome::Wait(wait));
                }
                run.condition(condition::TRANSFERRING, true, "UploadInProgress", "Upload started");
                run.status.message = Some("Upload started".to_owned());
                Ok(Outcome::Wait(run.config.poll))
            }
            JobState::Running(disks) => {
                let before = transfer::percent(run);
                let progress = transfer::record(run, &disks);
                run.status.bytes_transferred = Some(progress.done);
                let text = progress.sentence("Uploading");
                run.condition(condition::TRANSFERRING, true, "UploadInProgress", text.clone());
                run.status.message = Some(text);
                if progress.percent / 10 > before / 10 {
                    run.tell(
                        event::TRANSFER_PROGRESS,
                        format!("Upload progress: {}%", progress.percent),
                    );
                }
                Ok(Outcome::Progress)
            }
            JobState::Succeeded(reports) => succeeded(run, &reports),
            JobState::Failed(failure) => {
                // It has ended; this makes the executor forget it.
                run.ports.executor.cancel(&id).await?;
                run.status.export_task_ref = Some(naming::export_job(&run.owner, run.attempt() + 1).0);
                Err(Failure::job(failure, "TransferFailed").into())
            }
        }
    }
    .boxed()
}

pub(crate) fn undo(run: &Run) -> BoxFuture<'_, Result<(), Trouble>> {
    async move {
        cleanup::stop_export(run).await?;
        cleanup::discard_staged(run).await
    }
    .boxed()
}

async fn job(run: &Run, id: JobId) -> Result<Job, Trouble> {
    let source = run.source().await?;
    let frozen = run.status.snapshot_id.clone();
    let disks = run.objects()?.into_iter().zip(run.capacities()).zip(&run.status.disks);
    let disks = disks.map(|(((object, staged_format), capacity), disk)| DiskJob {
        name: disk.name.clone(),
        capacity,
        object,
        staged_format,
        target: None,
    });
    Ok(Job {
        id,
        migration: run.key.clone(),
        owner: run.owner.clone(),
        direction: Direction::Export {
            provider: source.key,
            vm: source.selector,
            frozen: FrozenId(frozen.ok_or_else(|| Failure::bug("status.snapshotId is not set"))?),
        },
        storage: run.storage(),
        bandwidth_limit: run.bandwidth_limit()?,
        disks: disks.collect(),
    })
}

fn succeeded(run: &mut Run, reports: &[DiskReport]) -> Result<Outcome, Trouble> {
    transfer::check_count(run, reports)?;
    for (disk, report) in run.status.disks.iter_mut().zip(reports) {
        let len = i64::try_from(report.len).unwrap_or(i64::MAX);
        disk.checksum = Some(report.checksum.clone());
        disk.content_digest = Some(report.content_digest.clone());
        disk.staged_bytes = Some(len);
        disk.bytes_transferred = Some(len);
    }
    transfer::stand_still(run);
    let total = reports.iter().map(|report| report.len).sum::<u64>();
    run.status.checksum = reports.first().map(|report| report.checksum.clone());
    run.status.bytes_transferred = Some(i64::try_from(total).unwrap_or(i64::MAX));
    let text = format!("Upload completed ({})", text::size(total));
    run.condition(condition::TRANSFERRING, false, "UploadCompleted", text.clone());
    run.tell(event::TRANSFER_COMPLETED, text.clone());
    Ok(Outcome::Done("UploadCompleted", text))
}
