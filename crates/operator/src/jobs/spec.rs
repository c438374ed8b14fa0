//! The Job of a job.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job as KubeJob, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use vmferry_api::names::LABEL_UID;
use vmferry_api::{Provider, VMMigration};
use vmferry_engine::port::{Direction, Job};

use super::Options;
use super::answer::Trouble;
use super::names::{APP, DISKS, LABEL_APP, LABEL_JOB, LABEL_MANAGED_BY, RUN, job_name};
use super::pod;

/// The longest text that a process takes as one variable of its environment, with some room.
const MOST: usize = 120 << 10;

/// The Job of a job, whose worker belongs to `run`. `provider` is the one that the job names, where there is one.
///
/// It is tried once: the engine decides what is tried again.
pub(super) fn kube_job(
    job: &Job,
    run: &str,
    provider: Option<&Provider>,
    options: &Options,
) -> Result<KubeJob, Trouble> {
    let told = serde_json::to_string(&pod::as_seen_inside(job, options));
    let told = told.map_err(|error| Trouble::Unfit(format!("the job cannot be written as JSON: {error}")))?;
    if told.len() > MOST {
        let (len, disks) = (told.len(), job.disks.len());
        let text = format!("what the worker has to be told of {disks} disks is {len} bytes, and {MOST} are the most");
        return Err(Trouble::Unfit(text));
    }
    let labels = labels(job);
    let annotations = [
        (RUN.to_owned(), run.to_owned()),
        (DISKS.to_owned(), job.disks.len().to_string()),
    ];
    Ok(KubeJob {
        metadata: ObjectMeta {
            name: Some(job_name(&job.id)),
            namespace: Some(job.migration.namespace.clone()),
            labels: Some(labels.clone()),
            annotations: Some(annotations.into()),
            owner_references: Some(vec![owner(job)]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            template: pod::template(job, &told, run, provider, labels, options),
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// The provider that a job opens.
pub(super) fn provider_of(job: &Job) -> &vmferry_api::Key {
    match &job.direction {
        Direction::Export { provider, .. } | Direction::Import { provider, .. } => provider,
    }
}

fn labels(job: &Job) -> BTreeMap<String, String> {
    [
        (LABEL_APP, APP),
        (LABEL_MANAGED_BY, "vmferry"),
        (LABEL_JOB, &job.id.0),
        (LABEL_UID, &job.owner.uid),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: VMMigration::api_version(&()).into_owned(),
        kind: VMMigration::kind(&()).into_owned(),
        name: job.migration.name.clone(),
        uid: job.owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
