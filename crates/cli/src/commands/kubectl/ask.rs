//! `kubectl vmferry retry` and `cancel`: an annotation with the present time, which the controller acts on once.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use vmferry_api::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY};
use vmferry_api::{Phase, VMMigration};

use super::client::{Cluster, call};
use crate::exit::{Code, Failure};
use crate::output;

/// Who is named as having set the annotation.
const MANAGER: &str = "kubectl-vmferry";

/// Asks for another try.
pub async fn retry(cluster: &Cluster, name: &str) -> Result<Code, Failure> {
    let migration = cluster.migration(name).await?;
    let follows = what_a_retry_does(&migration).map_err(|why| refused(cluster, name, &why))?;
    ask(cluster, &migration, name, ANNOTATION_RETRY).await?;
    output::line(&format!("{}: {follows}", cluster.object(name)));
    Ok(Code::Success)
}

/// Asks to give up.
pub async fn cancel(cluster: &Cluster, name: &str) -> Result<Code, Failure> {
    let migration = cluster.migration(name).await?;
    let status = migration.status.clone().unwrap_or_default();
    let why = match status.phase {
        _ if migration.metadata.deletion_timestamp.is_some() => Some("it is being deleted, which undoes it, too"),
        Phase::Ready => Some("it is Ready, and nothing is undone any more: delete what is not wanted by hand"),
        Phase::Failed if status.completion_time.is_some() => Some("it has failed already, and nothing of it is left"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(refused(cluster, name, why));
    }
    ask(cluster, &migration, name, ANNOTATION_CANCEL).await?;
    output::line(&format!("{}: what it made is being undone", cluster.object(name)));
    Ok(Code::Success)
}

/// What follows, or why there is nothing to try again.
fn what_a_retry_does(migration: &VMMigration) -> Result<&'static str, String> {
    let status = migration.status.clone().unwrap_or_default();
    if migration.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted".to_owned());
    }
    match status.phase {
        Phase::Failed if status.completion_time.is_some() => Ok("it starts again from Pending"),
        Phase::Failed => Ok("it is cleaned up now, and then starts again from Pending"),
        _ if status.next_retry_time.is_some() => Ok("the retry is due now"),
        phase => Err(format!("it is {phase:?} and waits for no retry")),
    }
}

fn refused(cluster: &Cluster, name: &str, why: &str) -> Failure {
    Failure::failed(format!("there is nothing to do for {}: {why}", cluster.object(name)))
}

/// Sets the annotation on the migration that was looked at, not on another one of its name.
async fn ask(cluster: &Cluster, migration: &VMMigration, name: &str, annotation: &str) -> Result<(), Failure> {
    let patch = json!({
        "metadata": { "uid": migration.metadata.uid, "annotations": { annotation: Timestamp::now().to_string() } },
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api = cluster.migrations();
    call(
        "annotate",
        &cluster.object(name),
        api.patch(name, &params, &Patch::Merge(&patch)),
    )
    .await?;
    Ok(())
}
