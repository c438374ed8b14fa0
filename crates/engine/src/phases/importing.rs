//! Importing: a volume for each disk, then the executor streams the staged objects into them; here they are only watched.

use std::fmt::Write as _;

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::DiskStatus;
use vmferry_api::names::{condition, event};
use vmferry_provider::VolumeId;

use crate::cleanup;
use crate::failure::{Failure, Trouble};
use crate::naming;
use crate::port::{Direction, DiskJob, DiskReport, DiskTarget, FailureKind, Job, JobId, JobState};
use crate::run::{Outcome, Run};
use crate::text;
use crate::transfer;
use crate::world::Target;

/// Each volume, and the job's id, is recorded before the next act.
pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        if let Some(index) = run.status.disks.iter().position(|disk| disk.target_volume.is_none()) {
            let target = run.target().await?;
            let volumes = run.volumes(&target);
            let made = target.host.create_volume(&volumes[index], &run.owner).await;
            let volume = made.map_err(|fault| Failure::target(&fault))?;
            run.status.disks[index].target_volume = Some(volume.id.0);
            return Ok(Outcome::Again);
        }
        let Some(id) = run.status.import_task_ref.clone().map(JobId) else {
            run.status.import_task_ref = Some(naming::import_job(&run.owner, run.attempt()).0);
            for disk in &mut run.status.disks {
                disk.bytes_transferred = None;
            }
            return Ok(Outcome::Again);
        };
        let Some(state) = transfer::observe(run, &id).await else {
            return Ok(Outcome::Wait(run.config.poll));
        };
        match state {
            JobState::Absent => {
                let target = run.target().await?;
                let job = job(run, id, &target)?;
                if let Some(wait) = transfer::start(run, &job, condition::IMPORTED).await? {
                    return Ok(Outcome::Wait(wait));
                }
                run.status.message = Some("Download started".to_owned());
                Ok(Outcome::Wait(run.config.poll))
            }
            JobState::Running(disks) => {
                let progress = transfer::record(run, &disks);
                run.status.message = Some(progress.sentence("Downloading"));
                Ok(Outcome::Progress)
            }
            JobState::Succeeded(reports) => {
                let unread = if run.config.readback {
                    let target = run.target().await?;
                    unread_disks(run, &target)
                } else {
                    Vec::new()
                };
                succeeded(run, &reports, &unread)
            }
            JobState::Failed(failure) => {
                // It has ended; this makes the executor forget it.
                run.ports.executor.cancel(&id).await?;
                run.status.import_task_ref = Some(naming::import_job(&run.owner, run.attempt() + 1).0);
                Err(Failure::job(failure, "ImportFailed").into())
            }
        }
    }
    .boxed()
}

pub(crate) fn undo(run: &Run) -> BoxFuture<'_, Result<(), Trouble>> {
    async move {
        cleanup::stop_import(run).await?;
        cleanup::delete_volumes(run).await
    }
    .boxed()
}

fn job(run: &Run, id: JobId, target: &Target) -> Result<Job, Failure> {
    let missing =
        |disk: &DiskStatus, field: &str| Failure::bug(format!("status.disks: {}: {field} is not set", disk.name));
    let mut disks = Vec::new();
    let plan = run
        .objects()?
        .into_iter()
        .zip(run.capacities())
        .zip(run.volumes(target));
    for ((((object, staged_format), capacity), volume), disk) in plan.zip(&run.status.disks) {
        let recorded = |value: &Option<String>, field| value.clone().ok_or_else(|| missing(disk, field));
        disks.push(DiskJob {
            name: disk.name.clone(),
            capacity,
            object,
            staged_format,
            target: Some(DiskTarget {
                volume: VolumeId(recorded(&disk.target_volume, "targetVolume")?),
                format: volume.format,
                capacity: volume.capacity,
                checksum: recorded(&disk.checksum, "checksum")?,
                content_digest: recorded(&disk.content_digest, "contentDigest")?,
            }),
        });
    }
    Ok(Job {
        id,
        migration: run.key.clone(),
        owner: run.owner.clone(),
        direction: Direction::Import {
            provider: target.key.clone(),
            readback: run.config.readback,
        },
        storage: run.storage(),
        bandwidth_limit: run.bandwidth_limit()?,
        disks,
    })
}

/// The disks whose volumes cannot be read back.
fn unread_disks(run: &Run, target: &Target) -> Vec<String> {
    let cannot = |disk: &&DiskStatus| {
        let volume = disk.target_volume.clone().map(VolumeId);
        volume.is_none_or(|volume| !target.host.reads_back(&volume))
    };
    let disks = run.status.disks.iter().filter(cannot);
    disks.map(|disk| disk.name.clone()).collect()
}

/// The import took the content digest again: it must be the one that the export took at the source.
fn succeeded(run: &mut Run, reports: &[DiskReport], unread: &[String]) -> Result<Outcome, Trouble> {
    transfer::check_count(run, reports)?;
    for (disk, report) in run.status.disks.iter().zip(reports) {
        if disk.content_digest.as_ref() != Some(&report.content_digest) {
            let text = format!(
                "disk {}: content digest at the source is {}, at the target {}; it is exported again",
                disk.name,
                disk.content_digest.as_deref().unwrap_or_default(),
                report.content_digest
            );
            return Err(Failure::new(FailureKind::StagedCorrupt, "StagedCorrupt", text).into());
        }
    }
    for (disk, report) in run.status.disks.iter_mut().zip(reports) {
        disk.bytes_transferred = i64::try_from(report.len).ok();
    }
    transfer::stand_still(run);
    let total = reports.iter().map(|report| report.len).sum();
    let mut how = if reports.iter().all(|report| report.fetched) {
        "; the target fetched it by itself".to_owned()
    } else {
        String::new()
    };
    if !unread.is_empty() {
        let _ = write!(
            how,
            "; not read back, since the target does not give their bytes: {}",
            unread.join(", ")
        );
    }
    let text = format!("Download completed ({}{how})", text::size(total));
    run.tell(event::IMPORT_COMPLETED, text.clone());
    Ok(Outcome::Done("ImportSuccessful", text))
}
