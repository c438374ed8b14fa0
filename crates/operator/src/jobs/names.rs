//! Names of what is made for a job, and of what controller and worker tell each other by.

use k8s_openapi::api::batch::v1::Job as KubeJob;
use kube::{Resource, ResourceExt};
use vmferry_api::names::LABEL_UID;
use vmferry_engine::port::JobId;
use vmferry_provider::Owner;

/// Environment: the engine's job, as JSON.
pub const ENV_JOB: &str = "VMFERRY_JOB";
/// Environment: the run that the worker belongs to.
pub const ENV_RUN: &str = "VMFERRY_RUN";
/// Environment: the worker's own name, by which it holds the lease.
pub const ENV_POD_NAME: &str = "POD_NAME";
/// Environment: the folder with the Secrets, `<namespace>/<name>/<key>`.
pub const ENV_SECRETS_DIR: &str = "VMFERRY_SECRETS_DIR";
/// Environment: the folder for sockets.
pub const ENV_RUNTIME_DIR: &str = "VMFERRY_RUNTIME_DIR";

/// The name of the container, and what a worker's objects carry as `app.kubernetes.io/name` is [`APP`].
pub const WORKER: &str = "worker";
/// The value of [`LABEL_APP`] of everything that is made here.
pub(super) const APP: &str = "vmferry-worker";
/// Label: which application it is.
pub(super) const LABEL_APP: &str = "app.kubernetes.io/name";
/// Label: who made it.
pub(super) const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label: the engine's job.
pub(super) const LABEL_JOB: &str = "migration.virtrigaud.io/job";

/// Annotation of a Job: its run. Of a lease: the run that may hold it.
pub(super) const RUN: &str = "migration.virtrigaud.io/run";
/// Annotation of a lease: the run of its holder.
pub(super) const HOLDER_RUN: &str = "migration.virtrigaud.io/holder-run";
/// Annotation of a Job: of how many disks.
pub(super) const DISKS: &str = "migration.virtrigaud.io/disks";
/// Annotation of a lease: how far the job is, as JSON.
pub(super) const PROGRESS: &str = "migration.virtrigaud.io/progress";
/// Annotation of a lease: what came of the job, as JSON.
pub(super) const OUTCOME: &str = "migration.virtrigaud.io/outcome";

/// What everything that is made here is found by.
pub(super) fn ours() -> String {
    format!("{LABEL_APP}={APP}")
}

/// What is made for this job.
pub(super) fn of_job(id: &JobId) -> String {
    format!("{LABEL_APP}={APP},{LABEL_JOB}={id}")
}

/// The name of the Job for a job.
pub(super) fn job_name(id: &JobId) -> String {
    format!("vmferry-{id}")
}

/// The name of a migration's lease.
pub(super) fn lease_name(owner: &Owner) -> String {
    format!("vmferry-{}", owner.uid)
}

/// Whether an object was made for this job.
pub(super) fn is_of<K: Resource>(object: &K, id: &JobId) -> bool {
    object.labels().get(LABEL_JOB) == Some(&id.0)
}

/// The migration that an object was made for, as its label says.
pub(super) fn owner_of<K: Resource>(object: &K) -> Owner {
    Owner::new(object.labels().get(LABEL_UID).cloned().unwrap_or_default())
}

/// The run of a Job.
pub(super) fn run_of(job: &KubeJob) -> &str {
    job.annotations().get(RUN).map_or("", String::as_str)
}
