//! One job from start to end.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;
use vmferry_engine::port::{
    Connector, Direction, DiskJob, DiskReport, DiskTarget, FailureKind, Job, JobFailure, Store,
};
use vmferry_mover::{
    Digest, ExportSpec, Import, ImportSpec, Progress, Report, TargetForm, export_disk, export_stream, verify_volume,
};
use vmferry_provider::{DiskInput, DiskSink, DiskStream, FrozenId, Hypervisor, Intake, Pull, Vm};
use vmferry_staging::StagingStore;
use vmferry_staging::limit::{Bucket, Limited};

use crate::budget::{AT_ONCE, Budget, Share};
use crate::failure::{self, failure};
use crate::open;
use crate::progress::JobProgress;

/// How long a URL is good for that a target is given: it begins at once, and may then read for as long as it takes.
const URL_LIFE: Duration = Duration::from_mins(15);
/// The memory of this process for all jobs.
static BUDGET: LazyLock<Budget> = LazyLock::new(Budget::default);

/// Runs a job: up to four disks at once, within the memory that all jobs of this process share. Safe to run again, wherever
/// the last run stopped.
///
/// The failure of one disk stops the others, which leave their journals, and is returned. When it returns, after `cancel` or
/// not, no byte moves any more.
pub async fn run_job(
    job: &Job,
    connector: &dyn Connector,
    store: &dyn Store,
    progress: &JobProgress,
    cancel: &CancellationToken,
) -> Result<Vec<DiskReport>, JobFailure> {
    let staging = open::staging(connector, store, &job.storage, &job.migration.namespace);
    let staging = unless(cancel, staging).await?;
    let stop = cancel.child_token();
    let run = Run {
        job,
        staging,
        buckets: buckets(job, connector),
        cancel: &stop,
    };
    match &job.direction {
        Direction::Export { provider, vm, frozen } => {
            let host = unless(cancel, open::hypervisor(connector, store, provider)).await?;
            let find = async { host.find_vm(vm).await.map_err(failure::hypervisor) };
            let vm = unless(cancel, find).await?;
            run.export(&*host, &vm, frozen, progress).await
        }
        Direction::Import { provider, readback } => {
            let host = unless(cancel, open::hypervisor(connector, store, provider)).await?;
            run.import(&*host, *readback, progress).await
        }
    }
}

struct Run<'a> {
    job: &'a Job,
    staging: Arc<dyn StagingStore>,
    /// The rates that bytes to and from staging keep to.
    buckets: Vec<Arc<Bucket>>,
    cancel: &'a CancellationToken,
}

/// The job's own rate, and the one that all share.
fn buckets(job: &Job, connector: &dyn Connector) -> Vec<Arc<Bucket>> {
    let own = job.bandwidth_limit.map(|rate| Arc::new(Bucket::new(rate)));
    own.into_iter().chain(connector.bandwidth()).collect()
}

impl Run<'_> {
    /// The store for one disk, which takes its turn in the rates.
    fn limited(&self, progress: &Arc<Progress>) -> Arc<dyn StagingStore> {
        let staging = Arc::clone(&self.staging);
        if self.buckets.is_empty() {
            return staging;
        }
        let progress = Arc::clone(progress);
        let alive = Arc::new(move || progress.alive());
        Arc::new(Limited::new(staging, self.buckets.clone(), alive))
    }

    async fn export(
        &self,
        host: &dyn Hypervisor,
        vm: &Vm,
        frozen: &FrozenId,
        progress: &JobProgress,
    ) -> Result<Vec<DiskReport>, JobFailure> {
        let export = |disk, progress, share| self.export_disk(host, vm, frozen, disk, progress, share).boxed();
        self.each(progress, export).await
    }

    /// Moves all disks, several at once, and gives their reports in order.
    async fn each<'a>(
        &'a self,
        progress: &'a JobProgress,
        one: impl Fn(&'a DiskJob, &'a Arc<Progress>, Share) -> BoxFuture<'a, Result<DiskReport, JobFailure>> + Sync,
    ) -> Result<Vec<DiskReport>, JobFailure> {
        let (count, one) = (self.job.disks.len(), &one);
        let first = &OnceLock::new();
        let mut moves = Vec::with_capacity(count);
        for (index, (disk, progress)) in self.job.disks.iter().zip(progress.iter()).enumerate() {
            let work = async move {
                let share = unless(self.cancel, async { Ok(BUDGET.share(count).await) }).await?;
                Ok((index, one(disk, progress, share).await?))
            };
            let told = async move {
                let outcome: Result<_, JobFailure> = work.await;
                outcome.inspect_err(|failure| {
                    // The others fail only because this one stops them.
                    first.get_or_init(|| failure.clone());
                    self.cancel.cancel();
                })
            };
            moves.push(told.boxed());
        }
        let moves = futures::stream::iter(moves).buffer_unordered(AT_ONCE);
        let outcomes: Vec<_> = moves.collect().await;
        if let Some(failure) = first.get() {
            return Err(failure.clone());
        }
        let mut reports: Vec<_> = outcomes.into_iter().flatten().collect();
        reports.sort_unstable_by_key(|(index, _)| *index);
        Ok(reports.into_iter().map(|(_, report)| report).collect())
    }

    async fn export_disk(
        &self,
        host: &dyn Hypervisor,
        vm: &Vm,
        frozen: &FrozenId,
        disk: &DiskJob,
        progress: &Arc<Progress>,
        share: Share,
    ) -> Result<DiskReport, JobFailure> {
        let open = async {
            host.open_disk(vm, frozen, &disk.name)
                .await
                .map_err(failure::hypervisor)
        };
        let input = unless(self.cancel, open).await?;
        if input.capacity() != disk.capacity {
            let (now, then) = (input.capacity(), disk.capacity);
            let message = format!(
                "disk {} has {now} bytes now and had {then} when the VM was looked up",
                disk.name
            );
            return Err(failure(FailureKind::FrozenStateGone, message));
        }
        let spec = ExportSpec {
            object: disk.object.clone(),
            owner: self.job.owner.uid.clone(),
            frozen: frozen.0.clone(),
            format: disk.staged_format,
            memory: share.memory,
        };
        let (staging, progress) = (self.limited(progress), Arc::clone(progress));
        let exported = match input {
            DiskInput::Random(source) => export_disk(source, staging, spec, progress, self.cancel.clone()).await,
            DiskInput::Stream(_) => {
                let again = || stream(host, vm, frozen, &disk.name).boxed();
                export_stream(&again, staging, spec, progress, self.cancel.clone()).await
            }
        };
        let report = exported.map_err(failure::moving)?;
        tracing::info!(job = %self.job.id, disk = %disk.name, bytes = report.moved, "disk exported");
        Ok(told(&report, false))
    }

    async fn import(
        &self,
        host: &dyn Hypervisor,
        readback: bool,
        progress: &JobProgress,
    ) -> Result<Vec<DiskReport>, JobFailure> {
        let import = |disk, progress, share| self.import_whole(host, disk, readback, progress, share).boxed();
        self.each(progress, import).await
    }

    async fn import_whole(
        &self,
        host: &dyn Hypervisor,
        disk: &DiskJob,
        readback: bool,
        progress: &Arc<Progress>,
        share: Share,
    ) -> Result<DiskReport, JobFailure> {
        let target = disk.target.as_ref().ok_or_else(|| {
            let message = format!("the import of disk {} has no target", disk.name);
            failure(FailureKind::Bug, message)
        })?;
        let pulled = match host.intake() {
            Intake::Object(_) => self.pull(host, disk, target).await?,
            Intake::File => None,
        };
        let fetched = pulled.is_some();
        let report = match pulled {
            Some(report) => {
                progress.elsewhere(report.len);
                report
            }
            None => self.import_disk(host, disk, target, progress, &share).await?,
        };
        let readback = readback && host.reads_back(&target.volume);
        if readback {
            self.read_back(host, disk, target, &report, progress).await?;
        }
        tracing::info!(job = %self.job.id, disk = %disk.name, bytes = report.moved, fetched, readback, "disk imported");
        Ok(told(&report, fetched))
    }

    /// Has the target fetch the object by itself, where store and target can do that. The target checks the SHA-256 of what it
    /// fetched, with which the export recorded the content digest.
    async fn pull(
        &self,
        host: &dyn Hypervisor,
        disk: &DiskJob,
        target: &DiskTarget,
    ) -> Result<Option<Report>, JobFailure> {
        let found = async {
            let url = self.staging.presigned_url(&disk.object, URL_LIFE).await?;
            let Some(url) = url else { return Ok(None) };
            Ok(self.staging.head(&disk.object).await?.map(|meta| (url, meta.len)))
        };
        let found = unless(self.cancel, async { found.await.map_err(failure::other) });
        let Some((url, len)) = found.await? else {
            return Ok(None);
        };
        let checksum = digest(&target.checksum, disk)?;
        let object = Pull { url, len, checksum };
        let pulled = host.pull(&target.volume, &self.job.owner, &object, self.cancel).await;
        if !pulled.map_err(failure::hypervisor)? {
            return Ok(None);
        }
        Ok(Some(Report {
            len,
            checksum,
            content_digest: digest(&target.content_digest, disk)?,
            moved: 0,
        }))
    }

    async fn import_disk(
        &self,
        host: &dyn Hypervisor,
        disk: &DiskJob,
        target: &DiskTarget,
        progress: &Arc<Progress>,
        share: &Share,
    ) -> Result<Report, JobFailure> {
        let checksum = digest(&target.checksum, disk)?;
        let spec = ImportSpec {
            object: disk.object.clone(),
            staged_format: disk.staged_format,
            checksum,
            content_digest: digest(&target.content_digest, disk)?,
            capacity: disk.capacity,
            form: match host.intake() {
                Intake::File => TargetForm::Volume {
                    format: target.format,
                    capacity: target.capacity,
                },
                Intake::Object(_) => TargetForm::Object,
            },
            volume: target.volume.0.clone(),
            memory: share.memory,
        };
        let opened = Import::open(self.limited(progress), spec, self.cancel).await;
        let mut import = opened.map_err(failure::moving)?;
        let checksum = match host.intake() {
            Intake::File => None,
            Intake::Object(_) => Some(checksum),
        };
        let sink = self.sink(host, target, checksum, &mut import).await?;
        import.run(sink, progress, self.cancel).await.map_err(failure::moving)
    }

    /// Opens the volume: behind what an earlier attempt wrote, where that can be, or else from the front.
    async fn sink(
        &self,
        host: &dyn Hypervisor,
        target: &DiskTarget,
        checksum: Option<Digest>,
        import: &mut Import,
    ) -> Result<Arc<dyn DiskSink>, JobFailure> {
        let (volume, owner, len) = (&target.volume, &self.job.owner, import.target_len());
        if import.written() > 0 {
            let reopened = host.reopen_sink(volume, owner, len, import.written());
            let reopened = unless(self.cancel, async { reopened.await.map_err(failure::hypervisor) });
            if let Some(sink) = reopened.await? {
                return Ok(sink);
            }
        }
        let emptied = async {
            import.start_over().await.map_err(failure::moving)?;
            let sink = host.open_sink(volume, owner, len, checksum).await;
            sink.map_err(failure::hypervisor)
        };
        unless(self.cancel, emptied).await
    }

    async fn read_back(
        &self,
        host: &dyn Hypervisor,
        disk: &DiskJob,
        target: &DiskTarget,
        report: &Report,
        progress: &Progress,
    ) -> Result<(), JobFailure> {
        let open = async {
            host.open_volume(&target.volume, target.format)
                .await
                .map_err(failure::hypervisor)
        };
        let volume = unless(self.cancel, open).await?;
        let verified = verify_volume(volume, disk.capacity, report.content_digest, progress, self.cancel).await;
        verified.map_err(failure::moving)
    }
}

/// Does `work`, unless it is called off before it is done. For what changes nothing that matters when it is dropped.
async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, JobFailure>>,
) -> Result<T, JobFailure> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(failure::cancelled()),
        outcome = work => outcome,
    }
}

/// A disk that its hypervisor gives as a stream, from the front.
async fn stream(
    host: &dyn Hypervisor,
    vm: &Vm,
    frozen: &FrozenId,
    disk: &str,
) -> Result<Box<dyn DiskStream>, vmferry_provider::Error> {
    match host.open_disk(vm, frozen, disk).await? {
        DiskInput::Stream(stream) => Ok(stream),
        DiskInput::Random(_) => {
            let object = format!("disk {disk:?} of VM {:?}", vm.name);
            Err(
                vmferry_provider::Error::new(vmferry_provider::Kind::Bug, "open", object)
                    .detail("it was a stream before"),
            )
        }
    }
}

fn digest(text: &str, disk: &DiskJob) -> Result<Digest, JobFailure> {
    text.parse().map_err(|error| {
        let message = format!(
            "cannot import disk {}: what the export recorded is damaged: {error}",
            disk.name
        );
        failure(FailureKind::StagedCorrupt, message)
    })
}

fn told(report: &Report, fetched: bool) -> DiskReport {
    DiskReport {
        len: report.len,
        checksum: report.checksum.to_string(),
        content_digest: report.content_digest.to_string(),
        moved: report.moved,
        fetched,
    }
}
