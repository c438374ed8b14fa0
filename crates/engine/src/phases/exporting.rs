//! Exporting: the frozen disks, opened and recorded; a clean place for them in staging.
//!
//! Every transfer begins here. So what is already staged, or imported, when this phase runs belongs to an attempt that was
//! given up (another frozen state, or a corrupt object) and is removed first: bytes of two points in time never meet.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::DiskStatus;
use vmferry_api::names::event;
use vmferry_provider::{DiskInput, FrozenId};

use crate::cleanup;
use crate::failure::{Failure, Trouble};
use crate::naming;
use crate::plan;
use crate::run::{Outcome, Run};
use crate::text;

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        cleanup::stop_jobs(run).await?;
        cleanup::delete_volumes(run).await?;
        cleanup::discard_staged(run).await?;

        let (disks, data) = open(run).await?;
        let staging = run.staging().await?;
        let checked = staging.check(data).await;
        let notes = checked.map_err(|fault| Failure::staging(&fault))?;

        let capacity = disks.iter().filter_map(|disk| disk.capacity_bytes).sum::<i64>();
        let text = format!(
            "{} exported from source ({}, {} of it data)",
            match disks.len() {
                1 => "Disk".to_owned(),
                several => text::count(several, "disk"),
            },
            text::size(capacity.unsigned_abs()),
            text::size(data)
        );
        run.status.intermediate_storage_url = disks.first().and_then(|disk| disk.url.clone());
        run.status.disks = disks;
        run.status.export_task_ref = Some(naming::export_job(&run.owner, run.attempt()).0);
        run.status.import_task_ref = None;
        run.tell(
            event::EXPORT_COMPLETED,
            format!("Disk export completed ({})", text::size(data)),
        );
        run.tell(
            event::TRANSFER_STARTED,
            text::noted("Upload to storage started", &notes),
        );
        Ok(Outcome::Done("ExportSuccessful", text))
    }
    .boxed()
}

/// Opens each disk of the frozen state; gives the disks and how many bytes of them are data.
async fn open(run: &Run) -> Result<(Vec<DiskStatus>, u64), Trouble> {
    let id = run.status.snapshot_id.clone();
    let frozen = FrozenId(id.ok_or_else(|| Failure::bug("status.snapshotId is not set"))?);
    let source = run.source().await?;
    let target = run.target().await?;
    let staging = run.staging().await?;
    let vm = source.vm().await?;
    let format = plan::staged_format(&source, &target);
    let mut disks = Vec::new();
    let mut data = 0;
    for disk in &vm.hardware.disks {
        let failure = |fault| Failure::source(&fault);
        let opened = source.host.open_disk(&vm, &frozen, &disk.name).await.map_err(failure)?;
        data += match &opened {
            DiskInput::Random(disk) => disk.map().await.map_err(failure)?.data_bytes(),
            // What it holds is known when it was read.
            DiskInput::Stream(_) => 0,
        };
        disks.push(DiskStatus {
            name: disk.name.clone(),
            format: Some(format.to_string()),
            capacity_bytes: i64::try_from(opened.capacity()).ok(),
            url: Some(staging.url(&run.object_key(&disk.name, format)?)),
            ..DiskStatus::default()
        });
    }
    Ok((disks, data))
}
