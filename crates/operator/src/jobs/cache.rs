//! What the API server told of Jobs and leases, by one watch each.
//!
//! It may be behind. It is good for seeing that all goes well; before anything is decided, the objects are read.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;
use vmferry_engine::port::JobId;

use super::names::{is_of, ours};
use crate::watching::watching;

/// Jobs and leases as last told. Dropping it ends the watches.
pub(super) struct Cache {
    jobs: Store<KubeJob>,
    leases: Store<Lease>,
    _watches: [AbortOnDropHandle<()>; 2],
}

impl Cache {
    /// Starts to watch, in one namespace or in all.
    pub(super) fn new(client: &Client, namespace: Option<&str>) -> Self {
        let (jobs, watch_jobs) = watch(scoped(client, namespace), |job: &mut KubeJob| job.spec = None);
        let (leases, watch_leases) = watch(scoped(client, namespace), |_| {});
        Self {
            jobs,
            leases,
            _watches: [watch_jobs, watch_leases],
        }
    }

    /// The Job of a job.
    pub(super) fn job(&self, id: &JobId) -> Option<Arc<KubeJob>> {
        self.jobs.find(|job| is_of(job, id))
    }

    /// A lease.
    pub(super) fn lease(&self, namespace: &str, name: &str) -> Option<Arc<Lease>> {
        self.leases.get(&ObjectRef::new(name).within(namespace))
    }
}

/// The objects of one namespace, or of all.
pub(super) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Watches what is ours of a kind. `prune` takes away what nobody looks at.
fn watch<K>(api: Api<K>, prune: fn(&mut K)) -> (Store<K>, AbortOnDropHandle<()>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = store();
    let told = watching(api, watcher::Config::default().labels(&ours()))
        .modify(move |object| {
            object.managed_fields_mut().clear();
            prune(object);
        })
        .reflect(writer)
        .for_each(|event| async move {
            if let Err(error) = event {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch was interrupted; it is taken up again");
            }
        });
    (reader, AbortOnDropHandle::new(tokio::spawn(told)))
}
