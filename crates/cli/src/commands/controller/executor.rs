//! Who moves the bytes.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::Client;
use vmferry_engine::port::{Connector, Executor, Store};
use vmferry_operator::jobs::{KubeExecutor, Options};
use vmferry_worker::InlineExecutor;

use super::args::{Controller, ExecutorKind};
use crate::exit::Failure;

/// An executor, and what of it has to be stopped with this process.
pub struct Moving {
    pub executor: Arc<dyn Executor>,
    inline: Option<Arc<InlineExecutor>>,
}

impl Moving {
    /// The executor that was asked for.
    pub fn new(
        args: &Controller,
        client: Client,
        connector: &Arc<dyn Connector>,
        store: &Arc<dyn Store>,
    ) -> Result<Self, Failure> {
        Ok(match args.executor {
            ExecutorKind::Inline => {
                let inline = Arc::new(InlineExecutor::new(Arc::clone(connector), Arc::clone(store)));
                Self {
                    executor: Arc::clone(&inline) as _,
                    inline: Some(inline),
                }
            }
            ExecutorKind::Job => Self {
                executor: Arc::new(KubeExecutor::new(client, options(args)?)),
                inline: None,
            },
        })
    }

    /// Stops what moves in this process. Jobs of the cluster go on.
    pub fn end(&self) -> impl Future<Output = ()> + use<> {
        let inline = self.inline.clone();
        async move {
            if let Some(inline) = inline
                && let Err(error) = inline.shutdown().await
            {
                tracing::warn!(%error, "a job could not be stopped");
            }
        }
    }
}

/// How the workers are run.
fn options(args: &Controller) -> Result<Options, Failure> {
    let workers = &args.workers;
    let image = workers.worker_image.clone().filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| {
        Failure::bad_input(
            "--executor job needs --worker-image: the image that this process runs from; or use --executor inline",
        )
    })?;
    let pod_template = match &workers.worker_pod_template {
        Some(path) => pod_template(path)?,
        None => PodTemplateSpec::default(),
    };
    Ok(Options {
        args: worker_args(args),
        service_account: workers.worker_service_account.clone(),
        pod_template,
        nfs_volumes: workers.nfs_volumes,
        namespace: args.watch_namespace.clone(),
        start_limit: workers.worker_start_limit.0,
        ..Options::new(image)
    })
}

/// What the workers are told of what this process was told.
fn worker_args(args: &Controller) -> Vec<String> {
    let mut told = Vec::new();
    for rule in args.hosts.rules() {
        told.push(format!("--allowed-storage-hosts={rule}"));
    }
    if let Some(rate) = args.limits.bandwidth_limit {
        told.push(format!("--bandwidth-limit={rate}"));
    }
    told
}

fn pod_template(path: &Path) -> Result<PodTemplateSpec, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::bad_input(format!("cannot read --worker-pod-template {}: {error}", path.display()))
    })?;
    serde_saphyr::from_str(&text).map_err(|error| {
        Failure::bad_input(format!(
            "--worker-pod-template {} is no PodTemplateSpec: {error}",
            path.display()
        ))
    })
}
