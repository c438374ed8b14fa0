//! What a lease says of its worker.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::ResourceExt;
use vmferry_engine::port::{DiskProgress, JobState};

use super::SILENT;
use super::names::{HOLDER_RUN, LABEL_JOB, OUTCOME, PROGRESS, RUN, lease_name, owner_of, run_of};

/// What a lease says of its worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Beat {
    /// The run that may hold it.
    pub run: String,
    /// Who holds it.
    pub holder: Option<String>,
    /// The run of who holds it.
    pub holder_run: String,
    /// How far the job is.
    pub progress: Vec<DiskProgress>,
    /// What came of it.
    pub outcome: Option<JobState>,
    /// Which lease it is.
    pub lease: String,
    /// What differs after each change.
    pub mark: String,
}

impl Beat {
    /// Reads a lease. What is not understood is taken for not said.
    pub(super) fn of(lease: &Lease) -> Self {
        let annotation = |name| lease.annotations().get(name).map_or("", String::as_str);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        Self {
            run: annotation(RUN).to_owned(),
            holder: holder.filter(|holder| !holder.is_empty()),
            holder_run: annotation(HOLDER_RUN).to_owned(),
            progress: serde_json::from_str(annotation(PROGRESS)).unwrap_or_default(),
            outcome: serde_json::from_str(annotation(OUTCOME)).ok().filter(is_end),
            lease: lease.uid().unwrap_or_default(),
            mark: lease.resource_version().unwrap_or_default(),
        }
    }

    /// Whether a worker of this run holds it.
    pub(super) fn is_held_by(&self, run: &str) -> bool {
        self.holder.is_some() && self.holder_run == run
    }

    /// How many bytes are done.
    pub(super) fn done(&self) -> u64 {
        self.progress.iter().map(|disk| disk.done).sum()
    }
}

fn is_end(state: &JobState) -> bool {
    matches!(state, JobState::Succeeded(_) | JobState::Failed(_))
}

/// A new lease, which a worker of this Job may take. It belongs to the migration, so that it outlives the Job.
pub(super) fn lease_for(job: &KubeJob) -> Lease {
    let mut lease = Lease {
        metadata: ObjectMeta {
            name: Some(lease_name(&owner_of(job))),
            namespace: job.namespace(),
            owner_references: job.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            lease_duration_seconds: i32::try_from(SILENT.as_secs()).ok(),
            ..LeaseSpec::default()
        }),
    };
    grant(&mut lease, job);
    lease
}

/// Lets workers of this Job take the lease, and no others. How far an earlier run of the same job came stays.
pub(super) fn grant(lease: &mut Lease, job: &KubeJob) {
    let same = lease.labels().get(LABEL_JOB) == job.labels().get(LABEL_JOB);
    lease.labels_mut().extend(job.labels().clone());
    let annotations = lease.annotations_mut();
    annotations.insert(RUN.to_owned(), run_of(job).to_owned());
    annotations.remove(OUTCOME);
    if !same {
        annotations.remove(PROGRESS);
    }
}

/// Makes `holder` the holder.
pub(super) fn take(lease: &mut Lease, holder: &str, run: &str) {
    lease.annotations_mut().insert(HOLDER_RUN.to_owned(), run.to_owned());
    let now = now();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(holder.to_owned());
    spec.acquire_time = Some(now.clone());
    spec.renew_time = Some(now);
    spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
}

/// Says that the holder is alive, and how far it is. What cannot be written as JSON is left as it was.
pub(super) fn renew(lease: &mut Lease, progress: &[DiskProgress]) {
    if let Ok(text) = serde_json::to_string(progress) {
        lease.annotations_mut().insert(PROGRESS.to_owned(), text);
    }
    lease.spec.get_or_insert_default().renew_time = Some(now());
}

/// Says what came of the job.
pub(super) fn conclude(lease: &mut Lease, outcome: &JobState) -> Result<(), serde_json::Error> {
    let text = serde_json::to_string(outcome)?;
    lease.annotations_mut().insert(OUTCOME.to_owned(), text);
    Ok(())
}

/// Lets go of it.
pub(super) fn release(lease: &mut Lease) {
    lease.annotations_mut().remove(HOLDER_RUN);
    if let Some(spec) = lease.spec.as_mut() {
        spec.holder_identity = None;
    }
}

/// In whole microseconds, as the API has it.
fn now() -> MicroTime {
    let now = Timestamp::now();
    MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}
