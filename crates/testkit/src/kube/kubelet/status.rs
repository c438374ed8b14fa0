//! How a node says that a Pod is.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Its container cannot start, for now.
pub(super) fn waiting(pod: &Pod, message: &str) -> Value {
    let state = json!({ "waiting": { "reason": "CreateContainerConfigError", "message": message } });
    status(pod, "Pending", None, &state)
}

/// Its container runs.
pub(super) fn running(pod: &Pod, started: Timestamp) -> Value {
    let state = json!({ "running": { "startedAt": started.to_string() } });
    status(pod, "Running", Some(started), &state)
}

/// Its container has ended.
pub(super) fn ended(pod: &Pod, started: Timestamp, code: i32) -> Value {
    let (phase, reason) = if code == 0 {
        ("Succeeded", "Completed")
    } else {
        ("Failed", "Error")
    };
    let state = json!({ "terminated": {
        "exitCode": code, "reason": reason,
        "startedAt": started.to_string(), "finishedAt": Timestamp::now().to_string(),
    } });
    status(pod, phase, Some(started), &state)
}

fn status(pod: &Pod, phase: &str, started: Option<Timestamp>, state: &Value) -> Value {
    let running = phase == "Running";
    let condition = |kind: &str, holds: bool| {
        let holds = if holds { "True" } else { "False" };
        json!({ "type": kind, "status": holds, "lastTransitionTime": Timestamp::now().to_string() })
    };
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let (name, image) = container.map_or(("", None), |container| (&container.name, container.image.as_deref()));
    let mut status = json!({
        "phase": phase,
        "podIP": "127.0.0.1",
        "hostIP": "127.0.0.1",
        "conditions": [condition("PodScheduled", true), condition("Ready", running), condition("ContainersReady", running)],
        "containerStatuses": [{
            "name": name, "image": image.unwrap_or_default(), "imageID": "", "restartCount": 0,
            "ready": running, "started": running, "state": state,
        }],
    });
    if let Some(started) = started {
        status["startTime"] = json!(started.to_string());
    }
    json!({ "status": status })
}
