//! Data phases as Jobs of a cluster: the executor that makes and watches them, and the lease by which a worker is heard of.
//!
//! [`KubeExecutor`] is the controller's side. It makes one `Job` for each job of the engine and reads what the worker says of
//! itself. [`Heartbeat`] is the worker's side: it holds the migration's lease for as long as bytes move.
//!
//! # Who may move bytes
//!
//! Two things together keep two workers from moving the bytes of one migration at once, whoever was killed, cut off or
//! started twice:
//!
//! - **The `Job`'s name** is the engine's job id, so that the API server makes it once, however many controllers ask for it.
//!   It carries a token of its own, the *run*.
//! - **The lease** is one for each migration, and names the run that may hold it. Only a controller makes it; a worker whose
//!   run it does not name moves nothing. A holder that cannot renew for [`FENCED`] stops by itself, and is killed by its own
//!   process after [`KILLED`]; nobody takes the lease from it before it was silent for [`SILENT`], or is known to be dead.
//!
//! No clock of one machine is compared to that of another: a lease is silent when it did not change for so long as seen by
//! whoever looks.
//!
//! # What a job came to
//!
//! The worker writes how far it is, and at the end what came of it, into annotations of the lease. A job that ended without
//! having said so is lost. It is removed and gone for the engine, which starts it again: the journal beside the staged object
//! knows how far it came.

mod answer;
mod beat;
mod cache;
mod executor;
mod heartbeat;
mod lost;
mod names;
mod pod;
mod removal;
mod sight;
mod spec;
mod store;
mod verdict;
mod words;

use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;

pub use executor::KubeExecutor;
pub use heartbeat::{Claim, Heartbeat, HeartbeatError};
pub use names::{ENV_JOB, ENV_POD_NAME, ENV_RUN, ENV_RUNTIME_DIR, ENV_SECRETS_DIR, WORKER};
pub use store::WorkerStore;

/// How often a worker renews its lease.
pub const RENEWED: Duration = Duration::from_secs(3);
/// A worker that could not renew its lease for so long stops moving bytes.
pub const FENCED: Duration = Duration::from_secs(15);
/// A worker that could not renew its lease for so long and has not stopped yet is killed by its own process.
pub const KILLED: Duration = Duration::from_secs(18);
/// A lease that did not change for so long is nobody's.
pub const SILENT: Duration = Duration::from_secs(20);

/// How the workers are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image of their container.
    pub image: String,
    /// Arguments behind `worker`, for what the controller was told by flags: where staging storage may be, how to log.
    pub args: Vec<String>,
    /// Their service account, which has to be in the namespace of each migration. The namespace's default one where none is
    /// named.
    pub service_account: Option<String>,
    /// What lies under the pod that is made here: resources, node selector, tolerations, priority class, image pull secrets.
    /// What is said of a container with the name `worker` is said of the worker.
    pub pod_template: PodTemplateSpec,
    /// Whether NFS storage with an endpoint is mounted into the pod by the cluster.
    pub nfs_volumes: bool,
    /// The one namespace in which there are migrations, where it is only one.
    pub namespace: Option<String>,
    /// How long a pod may take until its worker is heard of.
    pub start_limit: Duration,
}

impl Options {
    /// How long a pod may take to start where nothing else is said: an image has to be pulled, and a node may have to be made.
    pub const START_LIMIT: Duration = Duration::from_mins(10);

    /// Workers of this image, in all namespaces, with nothing else said.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            args: Vec::new(),
            service_account: None,
            pod_template: PodTemplateSpec::default(),
            nfs_volumes: false,
            namespace: None,
            start_limit: Self::START_LIMIT,
        }
    }
}
