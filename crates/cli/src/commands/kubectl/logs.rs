//! `kubectl vmferry logs`.

use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use tokio::time::sleep;
use vmferry_api::VMMigration;
use vmferry_api::names::LABEL_UID;

use super::args::Logs;
use super::client::{Cluster, call, explain};
use crate::exit::{Code, Failure};
use crate::output;

/// How often it is looked whether there is another worker.
const AGAIN: Duration = Duration::from_secs(2);

/// Prints what the workers of a migration log.
pub async fn logs(cluster: &Cluster, args: &Logs) -> Result<Code, Failure> {
    let mut read = None;
    loop {
        let migration = cluster.migration(&args.name).await?;
        let pod = newest(cluster, &migration).await?;
        match pod.map(|pod| pod.name_any()).filter(|name| read.as_ref() != Some(name)) {
            Some(name) if print(cluster, &name, args.follow).await? => read = Some(name),
            None if !args.follow => return Err(nothing(cluster, &args.name, &migration)),
            _ => {}
        }
        let ended = migration.status.is_some_and(|status| status.completion_time.is_some());
        if !args.follow || ended {
            return Ok(Code::Success);
        }
        sleep(AGAIN).await;
    }
}

/// The pod that was made last for a migration.
async fn newest(cluster: &Cluster, migration: &VMMigration) -> Result<Option<Pod>, Failure> {
    let uid = migration.metadata.uid.clone().unwrap_or_default();
    let params = ListParams::default().labels(&format!("{LABEL_UID}={uid}"));
    let object = format!("the workers of {}", cluster.object(&migration.name_any()));
    let pods = call("list", &object, cluster.pods().list(&params)).await?;
    Ok(pods.items.into_iter().max_by_key(ResourceExt::creation_timestamp))
}

/// Prints a pod's log; says whether there was one. A pod that has not started has none yet.
async fn print(cluster: &Cluster, pod: &str, follow: bool) -> Result<bool, Failure> {
    let params = LogParams {
        follow,
        // A pod template may bring others.
        container: Some(vmferry_operator::jobs::WORKER.to_owned()),
        ..LogParams::default()
    };
    let failed = |detail: String| Failure::failed(format!("cannot read the log of pod {pod}: {detail}"));
    let stream = match cluster.pods().log_stream(pod, &params).await {
        Ok(stream) => stream,
        Err(kube::Error::Api(status)) if follow && matches!(status.code, 400 | 404) => return Ok(false),
        Err(error) => return Err(failed(explain(&error))),
    };
    let mut lines = stream.lines();
    loop {
        match lines.try_next().await {
            Ok(Some(line)) => output::line(&line),
            Ok(None) => return Ok(true),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

fn nothing(cluster: &Cluster, name: &str, migration: &VMMigration) -> Failure {
    let phase = migration.status.as_ref().map(|status| status.phase).unwrap_or_default();
    Failure::failed(format!(
        "no worker of {} is there: it is {phase:?}, and workers run in Transferring and Importing (with `--executor inline`, in \
         the controller, whose log it is then)",
        cluster.object(name)
    ))
}
