//! The executor that runs each job as a Job of the cluster.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use vmferry_api::{Provider, VMMigration};
use vmferry_engine::port::{DiskProgress, Executor, ExecutorError, FailureKind, Job, JobFailure, JobId, JobState};

use super::Options;
use super::answer::{Trouble, ask, optional};
use super::beat::{self, Beat};
use super::cache::{Cache, scoped};
use super::lost::Losses;
use super::names::{DISKS, lease_name, of_job, owner_of, run_of};
use super::sight::Sightings;
use super::spec;
use super::verdict::{Verdict, verdict};

/// How many workers of one job may be lost in a row without getting on, before it counts as a failure.
const TOO_OFTEN: u32 = 5;
/// How often a lease that changes under us is read again.
const TRIES: u32 = 5;
/// Of how many objects is remembered to whom they belong. It is found out again where it was forgotten.
const VOUCHED: usize = 4096;

/// Runs each job as a Job of the cluster, in the namespace of its migration.
///
/// It keeps nothing that it could not do without: another one, in another process, sees and does the same. What its watches
/// tell is enough to see that a job goes on; before anything else is said or done, the objects are read.
pub struct KubeExecutor {
    pub(super) client: Client,
    options: Options,
    cache: Cache,
    pub(super) sightings: Sightings,
    losses: Losses,
    /// UIDs of objects that are known to belong to the migration that they name.
    vouched: Mutex<HashSet<String>>,
}

impl KubeExecutor {
    /// An executor that makes Jobs like this. To be called on a runtime: its watches run for as long as it is there.
    pub fn new(client: Client, options: Options) -> Self {
        Self {
            cache: Cache::new(&client, options.namespace.as_deref()),
            client,
            options,
            sightings: Sightings::default(),
            losses: Losses::default(),
            vouched: Mutex::default(),
        }
    }

    /// What is seen of a job without asking, if that is that it goes on.
    fn glance(&self, id: &JobId) -> Option<JobState> {
        let job = self.cache.job(id)?;
        if !self.is_vouched(&*job) {
            return None;
        }
        let lease = self.cache.lease(&job.namespace()?, &lease_name(&owner_of(&*job)))?;
        let beat = Beat::of(&lease);
        match self.judge(&job, Some(&beat)) {
            Verdict::Alive | Verdict::Waiting => Some(JobState::Running(progress(&job, Some(&beat)))),
            _ => None,
        }
    }

    /// Reads how a job is doing, and does what is due.
    async fn look(&self, id: &JobId) -> Result<JobState, Trouble> {
        let Some(job) = self.find(id).await? else {
            return Ok(JobState::Absent);
        };
        let beat = self.lease_of(&job).await?.as_ref().map(Beat::of);
        let seen = self.judge(&job, beat.as_ref());
        match &seen {
            Verdict::Ended(outcome) => return Ok(outcome.clone()),
            Verdict::Lost | Verdict::Silent => return self.lost(id, &job, beat.as_ref(), &seen).await,
            Verdict::NotStarted => return self.not_started(id, &job).await,
            Verdict::Ungranted => self.grant(&job).await?,
            Verdict::Ending { abandoned: true } => self.abandon(&job).await?,
            Verdict::Ending { abandoned: false } | Verdict::Waiting | Verdict::Alive => {}
        }
        Ok(JobState::Running(progress(&job, beat.as_ref())))
    }

    fn judge(&self, job: &KubeJob, beat: Option<&Beat>) -> Verdict {
        let age = match beat {
            Some(beat) => self.age(beat),
            None => self.sightings.age(&thing(job), "without a lease"),
        };
        verdict(job, beat, age, self.options.start_limit)
    }

    /// For how long a lease is as it is.
    pub(super) fn age(&self, beat: &Beat) -> Duration {
        self.sightings.age(&beat.lease, &beat.mark)
    }

    /// The worker is gone: it is removed, to be started again, unless that was done too often already.
    async fn lost(&self, id: &JobId, job: &KubeJob, beat: Option<&Beat>, seen: &Verdict) -> Result<JobState, Trouble> {
        let count = self.losses.note(id, run_of(job), beat.map_or(0, Beat::done));
        let words = self.words(id, job).await?;
        tracing::warn!(job = %id, uid = %owner_of(job).uid, count, "the worker was lost: {words}");
        if count >= TOO_OFTEN {
            let text = format!("{count} workers in a row were lost without getting on; of the last one: {words}");
            return Ok(failed(job, &text));
        }
        match seen {
            // Its node may never say that the pod is gone.
            Verdict::Silent => self.abandon(job).await?,
            _ => self.remove(job).await?,
        }
        Ok(JobState::Running(progress(job, beat)))
    }

    async fn not_started(&self, id: &JobId, job: &KubeJob) -> Result<JobState, Trouble> {
        let (limit, words) = (self.options.start_limit.as_secs(), self.words(id, job).await?);
        Ok(failed(
            job,
            &format!("its worker did not start within {limit} s: {words}"),
        ))
    }

    /// Makes the Job, or finds it made.
    async fn make(&self, job: &Job) -> Result<KubeJob, Trouble> {
        let key = spec::provider_of(job);
        let providers: Api<Provider> = Api::namespaced(self.client.clone(), &key.namespace);
        let provider = ask(providers.get_opt(&key.name)).await?;
        let run = format!("{:016x}", rand::random::<u64>());
        let wanted = spec::kube_job(job, &run, provider.as_ref(), &self.options)?;
        let jobs: Api<KubeJob> = Api::namespaced(self.client.clone(), &job.migration.namespace);
        match ask(jobs.create(&PostParams::default(), &wanted)).await {
            Ok(made) => {
                tracing::info!(job = %job.id, uid = %job.owner.uid, migration = %job.migration, "Job made");
                Ok(made)
            }
            Err(trouble) if trouble.is_already_exists() => {
                let found = ask(jobs.get(&wanted.name_any())).await?;
                if self.belongs(&found, &job.id).await? {
                    return Ok(found);
                }
                let text = format!(
                    "there is a Job {}/{} that is none of this migration's; remove it",
                    job.migration.namespace,
                    found.name_any()
                );
                Err(Trouble::Unfit(text))
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Lets the worker of a Job take the migration's lease. A holder that is dead, or silent for long enough, loses it at once.
    async fn grant(&self, job: &KubeJob) -> Result<(), Trouble> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace(job));
        let name = lease_name(&owner_of(job));
        for _ in 0..TRIES {
            let written = match ask(leases.get_opt(&name)).await? {
                None => ask(leases.create(&PostParams::default(), &beat::lease_for(job))).await,
                Some(lease) if Beat::of(&lease).run == run_of(job) => return Ok(()),
                Some(mut lease) => {
                    if !self.is_held(&lease).await? {
                        beat::release(&mut lease);
                    }
                    beat::grant(&mut lease, job);
                    ask(leases.replace(&name, &PostParams::default(), &lease)).await
                }
            };
            match written {
                Err(trouble) if trouble.is_conflict() || trouble.is_already_exists() => {}
                Err(trouble) => return Err(trouble),
                Ok(_) => return Ok(()),
            }
        }
        let text = format!("the lease {}/{name} changes all the time", namespace(job));
        Err(Trouble::Unfit(text))
    }

    /// The Job of a job, read from the API server.
    pub(super) async fn find(&self, id: &JobId) -> Result<Option<KubeJob>, Trouble> {
        let jobs: Api<KubeJob> = scoped(&self.client, self.options.namespace.as_deref());
        self.first_that_belongs(jobs, id).await
    }

    /// The lease that was last granted to a job, read from the API server.
    pub(super) async fn find_lease(&self, id: &JobId) -> Result<Option<Lease>, Trouble> {
        let leases: Api<Lease> = scoped(&self.client, self.options.namespace.as_deref());
        self.first_that_belongs(leases, id).await
    }

    async fn first_that_belongs<K>(&self, api: Api<K>, id: &JobId) -> Result<Option<K>, Trouble>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        for found in ask(api.list(&ListParams::default().labels(&of_job(id)))).await? {
            if self.belongs(&found, id).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn lease_of(&self, job: &KubeJob) -> Result<Option<Lease>, Trouble> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace(job));
        optional(ask(leases.get(&lease_name(&owner_of(job)))).await)
    }

    /// Whether an object belongs to the migration of this job. Labels can be written by anybody, in any namespace; the
    /// migration with this UID is in one namespace, and whoever may write there may write the migration as well.
    async fn belongs<K: Resource>(&self, object: &K, id: &JobId) -> Result<bool, Trouble> {
        let owner = owner_of(object);
        if !id.0.contains(&format!("-{}-", owner.tag())) {
            return Ok(false);
        }
        if self.is_vouched(object) {
            return Ok(true);
        }
        let named = object.owner_references().iter().find(|named| named.uid == owner.uid);
        let (Some(named), Some(namespace)) = (named, object.namespace()) else {
            return Ok(false);
        };
        let migrations: Api<VMMigration> = Api::namespaced(self.client.clone(), &namespace);
        let found = ask(migrations.get_metadata_opt(&named.name)).await?;
        let belongs = found.is_some_and(|found| found.uid().as_ref() == Some(&owner.uid));
        if let Some(uid) = object.uid().filter(|_| belongs) {
            let mut vouched = self.vouched();
            if vouched.len() >= VOUCHED {
                vouched.clear();
            }
            vouched.insert(uid);
        }
        Ok(belongs)
    }

    fn is_vouched<K: Resource>(&self, object: &K) -> bool {
        object.uid().is_some_and(|uid| self.vouched().contains(&uid))
    }

    fn vouched(&self) -> MutexGuard<'_, HashSet<String>> {
        self.vouched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a job is: as its worker last said, or not begun.
fn progress(job: &KubeJob, beat: Option<&Beat>) -> Vec<DiskProgress> {
    let said = beat.map(|beat| beat.progress.clone()).unwrap_or_default();
    if !said.is_empty() {
        return said;
    }
    let disks = job.annotations().get(DISKS).and_then(|disks| disks.parse().ok());
    vec![DiskProgress::default(); disks.unwrap_or(0)]
}

fn failed(job: &KubeJob, text: &str) -> JobState {
    let (namespace, name) = (namespace(job), job.name_any());
    JobState::Failed(JobFailure {
        kind: FailureKind::Retryable,
        message: format!("cannot run the Job {namespace}/{name}: {text}"),
    })
}

pub(super) fn namespace<K: Resource>(object: &K) -> String {
    object.namespace().unwrap_or_default()
}

/// What a Job's run is noted under.
pub(super) fn thing(job: &KubeJob) -> String {
    format!("{}/{}", job.uid().unwrap_or_default(), run_of(job))
}

#[async_trait]
impl Executor for KubeExecutor {
    async fn start(&self, job: &Job) -> Result<(), ExecutorError> {
        let started = async {
            let made = self.make(job).await?;
            self.grant(&made).await
        };
        started.await.map_err(|trouble| error("start", &job.id, &trouble))
    }

    async fn observe(&self, id: &JobId) -> Result<JobState, ExecutorError> {
        match self.glance(id) {
            Some(running) => Ok(running),
            None => self.look(id).await.map_err(|trouble| error("observe", id, &trouble)),
        }
    }

    async fn cancel(&self, id: &JobId) -> Result<(), ExecutorError> {
        let stopped = self.stop(id).await;
        let stopped = stopped.map_err(|trouble| error("cancel", id, &trouble));
        if stopped.is_ok() {
            self.losses.forget(id);
        }
        stopped
    }
}

fn error(action: &'static str, job: &JobId, trouble: &Trouble) -> ExecutorError {
    ExecutorError {
        action,
        job: job.clone(),
        detail: trouble.to_string(),
        passes: trouble.passes(),
    }
}
