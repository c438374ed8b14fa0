//! What the cluster says of a worker's pod: why it does not start, how it ended.

use k8s_openapi::api::batch::v1::Job as KubeJob;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use vmferry_engine::port::JobId;

use super::answer::{Trouble, ask};
use super::executor::{KubeExecutor, namespace};
use super::names::of_job;

/// The most that is quoted of what a worker said last.
const QUOTED: usize = 300;

impl KubeExecutor {
    /// What the cluster says of the pod of a Job, in a few words.
    pub(super) async fn words(&self, id: &JobId, job: &KubeJob) -> Result<String, Trouble> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace(job));
        let found = ask(pods.list(&ListParams::default().labels(&of_job(id)))).await?;
        let last = found
            .into_iter()
            .max_by_key(|pod| pod.metadata.creation_timestamp.clone());
        Ok(match last {
            Some(pod) => format!("pod {}: {}", pod.name_any(), of_pod(&pod)),
            None => "it has no pod; see the Job's events".to_owned(),
        })
    }
}

fn of_pod(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "nothing is known of it".to_owned();
    };
    let mut containers = status.container_statuses.iter().flatten();
    if let Some(words) = containers.find_map(of_container) {
        return words;
    }
    let conditions = status.conditions.iter().flatten();
    let mut unmet = conditions.filter(|condition| condition.status == "False");
    let unmet = unmet.find_map(|condition| both(condition.reason.as_deref(), condition.message.as_deref()));
    let said = both(status.reason.as_deref(), status.message.as_deref()).or(unmet);
    said.unwrap_or_else(|| {
        status
            .phase
            .clone()
            .unwrap_or_else(|| "nothing is known of it".to_owned())
    })
}

fn of_container(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    if let Some(ended) = &state.terminated {
        let how = format!(
            "{} with exit code {}",
            ended.reason.as_deref().unwrap_or("ended"),
            ended.exit_code
        );
        return both(Some(&how), ended.message.as_deref());
    }
    let waiting = state.waiting.as_ref()?;
    both(waiting.reason.as_deref(), waiting.message.as_deref())
}

fn both(reason: Option<&str>, message: Option<&str>) -> Option<String> {
    let parts = [reason.map(str::to_owned), message.map(end_of)];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The end of a long text, on one line.
fn end_of(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = line.chars().count().saturating_sub(QUOTED);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn said(status: &Value, expected: &str) {
        let pod = serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap();
        assert_eq!(of_pod(&pod), expected);
    }

    #[test]
    fn the_cause_is_told_where_there_is_one() {
        let container = |state: Value| json!({ "phase": "Pending", "containerStatuses": [{ "name": "worker", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] });
        let pulling = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } });
        said(&container(pulling), "ImagePullBackOff: Back-off pulling image");
        let killed = json!({ "terminated": { "reason": "OOMKilled", "exitCode": 137 } });
        said(&container(killed), "OOMKilled with exit code 137");
        let unscheduled = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes\nfit" });
        said(
            &json!({ "phase": "Pending", "conditions": [unscheduled] }),
            "Unschedulable: 0/3 nodes fit",
        );
        said(
            &json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" }),
            "Evicted: low on memory",
        );
        said(&json!({ "phase": "Failed" }), "Failed");
    }

    #[test]
    fn of_a_long_text_the_end_counts() {
        let long = format!("{} the end", "x".repeat(1000));
        let end = end_of(&long);
        assert!(end.ends_with("the end") && end.chars().count() == QUOTED, "{end}");
    }
}
