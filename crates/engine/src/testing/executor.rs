//! The fake executor: jobs move content tokens, a part at each tick of the world, whoever called.
//!
//! Its mover is a naive one: it goes on with whatever upload it finds and takes an object that exists for its own. So only
//! the engine keeps two frozen states apart, and the checks here see when it does not.

use async_trait::async_trait;

use super::world::{FakeObject, State, World, is_foreign};
use crate::port::{
    Direction, DiskJob, DiskProgress, DiskReport, Executor, ExecutorError, FailureKind, Job, JobFailure, JobId,
    JobState,
};

/// Parts of a staged object.
pub(crate) const PARTS: usize = 3;
/// Bytes of a part.
const PART: u64 = 1000;

/// A job: how many parts of all its disks are done, and how it ended.
pub(crate) struct FakeJob {
    pub job: Job,
    done: usize,
    failed: Option<JobFailure>,
    reports: Vec<DiskReport>,
}

impl FakeJob {
    fn running(&self) -> bool {
        self.failed.is_none() && self.done < self.job.disks.len() * PARTS
    }

    pub(crate) fn fail(&mut self, kind: FailureKind) {
        if self.running() {
            self.failed = Some(JobFailure {
                kind,
                message: format!("cannot move {}: planned {kind:?}", self.job.id),
            });
        }
    }

    fn state(&self) -> JobState {
        if let Some(failure) = &self.failed {
            return JobState::Failed(failure.clone());
        }
        if !self.running() {
            return JobState::Succeeded(self.reports.clone());
        }
        let progress = |index: usize| {
            let parts = self.done.saturating_sub(index * PARTS).min(PARTS);
            DiskProgress {
                done: parts as u64 * PART,
                total: PARTS as u64 * PART,
                rate: PART,
            }
        };
        JobState::Running((0..self.job.disks.len()).map(progress).collect())
    }
}

pub(crate) fn digest(content: u64) -> String {
    format!("content:{content}")
}

fn checksum(object: &FakeObject) -> String {
    format!("sha256:{}-{}", object.frozen, object.content)
}

impl State {
    pub(crate) fn run_jobs(&mut self) {
        let ids: Vec<_> = self.jobs.keys().cloned().collect();
        for id in ids {
            let Some(mut job) = self.jobs.remove(&id) else { continue };
            if job.running() {
                let index = job.done / PARTS;
                let disk = job.job.disks[index].clone();
                let part = job.done % PARTS;
                let result = match job.job.direction.clone() {
                    Direction::Export { frozen, .. } => self.export(&job.job, index, &disk, part, &frozen.0),
                    Direction::Import { .. } => self.import(&job.job, &disk, part),
                };
                match result {
                    Ok(report) => {
                        // An object that is there already needs no more parts.
                        job.done = if report.is_some() {
                            (index + 1) * PARTS
                        } else {
                            job.done + 1
                        };
                        job.reports.extend(report);
                    }
                    Err(failure) => job.failed = Some(failure),
                }
            }
            self.jobs.insert(id, job);
        }
    }

    fn export(
        &mut self,
        job: &Job,
        index: usize,
        disk: &DiskJob,
        part: usize,
        frozen: &str,
    ) -> Result<Option<DiskReport>, JobFailure> {
        let key = disk.object.as_str().to_owned();
        if let Some(object) = self.objects.get(&key).cloned() {
            if object.frozen != frozen {
                self.violation(format!("{key} of {} taken for one of {frozen}", object.frozen));
            }
            return Ok(Some(report(&object, 0)));
        }
        let holds = self
            .frozen
            .iter()
            .any(|each| each.id == frozen && each.holds && each.owner == job.owner);
        if !holds {
            return Err(JobFailure {
                kind: FailureKind::FrozenStateGone,
                message: format!("cannot read disk {} of {frozen}: it is gone", disk.name),
            });
        }
        let upload = self.uploads.entry(key.clone()).or_default();
        // What an earlier job has moved is not moved again.
        if part < upload.parts.len() {
            return Ok(None);
        }
        upload.parts.push(frozen.to_owned());
        let parts = upload.parts.clone();
        if parts.iter().any(|each| each != frozen) {
            self.violation(format!("{key} mixes frozen states: {parts:?}"));
        }
        let sealed = (parts.len() == PARTS).then_some(frozen);
        let note = serde_json::json!({"owner": job.owner.uid, "sealed": sealed});
        self.notes.insert(key.clone(), note.to_string());
        if !self.moved.insert((key.clone(), part, frozen.to_owned())) {
            self.violation(format!("part {part} of {key} was moved again"));
        }
        if parts.len() < PARTS {
            return Ok(None);
        }
        let object = FakeObject {
            frozen: frozen.to_owned(),
            content: self.history[frozen][index],
            rotten: false,
        };
        self.uploads.remove(&key);
        self.objects.insert(key, object.clone());
        Ok(Some(report(&object, PARTS as u64 * PART)))
    }

    fn import(&mut self, job: &Job, disk: &DiskJob, part: usize) -> Result<Option<DiskReport>, JobFailure> {
        let target = disk.target.clone().unwrap();
        let corrupt = |message: String| JobFailure {
            kind: FailureKind::StagedCorrupt,
            message,
        };
        if self.wrong_bytes {
            // What follows is exported again.
            self.moved.clear();
        }
        let Some(object) = self.objects.get(disk.object.as_str()).cloned() else {
            return Err(corrupt(format!("{} is gone", disk.object)));
        };
        if object.rotten || checksum(&object) != target.checksum {
            self.moved.clear();
            return Err(corrupt(format!("{} is not what was exported", disk.object)));
        }
        let wrong = u64::from(self.wrong_bytes);
        let found = self
            .volumes
            .get_mut(&target.volume.0)
            .filter(|volume| volume.owner == job.owner);
        let Some(volume) = found else {
            self.violation(format!(
                "import into {:?}, which is not ours or not there",
                target.volume
            ));
            return Ok(None);
        };
        if part + 1 < PARTS {
            volume.content = None;
            return Ok(None);
        }
        volume.content = Some(object.content + wrong);
        self.wrong_bytes = false;
        let mut report = report(&object, PARTS as u64 * PART);
        report.content_digest = digest(object.content + wrong);
        Ok(Some(report))
    }
}

fn report(object: &FakeObject, moved: u64) -> DiskReport {
    DiskReport {
        len: PARTS as u64 * PART,
        checksum: checksum(object),
        content_digest: digest(object.content),
        moved,
        fetched: false,
    }
}

#[async_trait]
impl Executor for World {
    async fn start(&self, job: &Job) -> Result<(), ExecutorError> {
        let start = |state: &mut State| {
            let same = |other: &FakeJob| {
                let way = std::mem::discriminant(&other.job.direction) == std::mem::discriminant(&job.direction);
                way && other.job.id != job.id && other.job.owner == job.owner && other.running()
            };
            if state.jobs.values().any(same) {
                state.violation(format!("{} started while another runs", job.id));
            }
            if job.disks.iter().any(|disk| is_foreign(disk.object.as_str())) {
                state.violation(format!("{} touches a foreign object", job.id));
            }
            if state.busy {
                let detail = "the API server is busy".to_owned();
                return Err(ExecutorError {
                    detail,
                    passes: true,
                    ..error("start", &job.id)
                });
            }
            state.jobs.entry(job.id.0.clone()).or_insert_with(|| FakeJob {
                job: job.clone(),
                done: 0,
                failed: None,
                reports: Vec::new(),
            });
            Ok(())
        };
        self.call("executor.start", |_| error("start", &job.id), start).await
    }

    async fn observe(&self, id: &JobId) -> Result<JobState, ExecutorError> {
        let observe = |state: &mut State| Ok(state.jobs.get(&id.0).map_or(JobState::Absent, FakeJob::state));
        self.call("executor.observe", |_| error("observe", id), observe).await
    }

    async fn cancel(&self, id: &JobId) -> Result<(), ExecutorError> {
        let cancel = |state: &mut State| {
            state.jobs.remove(&id.0);
            Ok(())
        };
        self.call("executor.cancel", |_| error("cancel", id), cancel).await
    }
}

fn error(action: &'static str, job: &JobId) -> ExecutorError {
    ExecutorError {
        action,
        job: job.clone(),
        detail: "planned".to_owned(),
        passes: false,
    }
}
