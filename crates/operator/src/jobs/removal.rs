//! Stopping a job: its Job goes first, and what is waited for is that its worker moves no byte any more.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use vmferry_engine::port::JobId;

use super::SILENT;
use super::answer::{Trouble, ask, optional};
use super::beat::Beat;
use super::executor::{KubeExecutor, namespace, thing};

/// How long a job may take to stop: the grace that its pod has, the silence after which it counts as dead, and some more.
const STOPPING: Duration = Duration::from_mins(3);
/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(500);

impl KubeExecutor {
    /// Stops a job and waits until it moves no byte any more, whether or not its Job is still there.
    pub(super) async fn stop(&self, id: &JobId) -> Result<(), Trouble> {
        let began = Instant::now();
        loop {
            let stopped = match self.stop_once(id).boxed().await {
                Err(trouble) if trouble.passes() && began.elapsed() < STOPPING => false,
                other => other?,
            };
            if stopped {
                return Ok(());
            }
            if began.elapsed() >= STOPPING {
                return Err(Trouble::Unfit("it has not stopped moving bytes yet".to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does what is due, and says whether nothing is left.
    async fn stop_once(&self, id: &JobId) -> Result<bool, Trouble> {
        let job = self.find(id).await?;
        let lease = self.find_lease(id).await?;
        let held = match &lease {
            Some(lease) => self.is_held(lease).await?,
            None => false,
        };
        if let Some(job) = job {
            let ending = job.metadata.deletion_timestamp.is_some();
            let mark = lease.as_ref().and_then(Lease::resource_version).unwrap_or_default();
            let age = self.sightings.age(&thing(&job), &format!("stopping {ending} {mark}"));
            if !ending {
                self.remove(&job).await?;
            } else if !held && age >= SILENT {
                self.abandon(&job).await?;
            }
            return Ok(false);
        }
        match lease {
            Some(_) if held => Ok(false),
            Some(lease) => self.delete_lease(&lease).await,
            None => Ok(true),
        }
    }

    /// Whether somebody alive may hold a lease.
    pub(super) async fn is_held(&self, lease: &Lease) -> Result<bool, Trouble> {
        let beat = Beat::of(lease);
        let silent = self.age(&beat) >= SILENT;
        match beat.holder {
            Some(holder) if !silent => Ok(!self.is_dead(&namespace(lease), &holder).await?),
            _ => Ok(false),
        }
    }

    /// Whether the process that a pod ran is known to have ended. A pod is gone only when its processes are, unless it was
    /// removed by force.
    async fn is_dead(&self, namespace: &str, pod: &str) -> Result<bool, Trouble> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let Some(found) = ask(pods.get_opt(pod)).await? else {
            return Ok(true);
        };
        let phase = found.status.and_then(|status| status.phase);
        Ok(phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed"))
    }

    /// Deletes a Job, which stays until its pods are gone.
    pub(super) async fn remove(&self, job: &KubeJob) -> Result<(), Trouble> {
        self.delete(job, PropagationPolicy::Foreground).await
    }

    /// Deletes a Job whose pod is on a node that does not answer: the pod may stay.
    pub(super) async fn abandon(&self, job: &KubeJob) -> Result<(), Trouble> {
        tracing::warn!(job = %job.name_any(), "the worker's pod does not go away; it was silent for long enough");
        self.delete(job, PropagationPolicy::Background).await
    }

    /// Deletes a Job, if it is still the one that was looked at.
    async fn delete(&self, job: &KubeJob, propagation: PropagationPolicy) -> Result<(), Trouble> {
        let jobs: Api<KubeJob> = Api::namespaced(self.client.clone(), &namespace(job));
        let params = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: Some(Preconditions {
                uid: job.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match optional(ask(jobs.delete(&job.name_any(), &params)).await) {
            Err(trouble) if trouble.is_conflict() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Deletes a lease unless it changed; says whether it did.
    async fn delete_lease(&self, lease: &Lease) -> Result<bool, Trouble> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace(lease));
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: lease.uid(),
            resource_version: lease.resource_version(),
        });
        match optional(ask(leases.delete(&lease.name_any(), &params)).await) {
            Err(trouble) if trouble.is_conflict() => Ok(false),
            other => {
                other?;
                Ok(true)
            }
        }
    }
}
