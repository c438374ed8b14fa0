//! What a user does on the cluster of a lab, besides what the scenarios do.

use std::process::Command;

use http::Request;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::support::{Crossing, Lab};

const API: &str = "infra.virtrigaud.io/v1beta1";

/// Applies the manifests of a crossing; gives why the API server does not take one.
pub fn declare(lab: &Lab, crossing: &Crossing) -> Result<(), String> {
    for document in crossing.to_yaml().split("---\n").filter(|text| !text.trim().is_empty()) {
        lab.ferry.cluster().apply(&serde_json::from_str(document).unwrap())?;
    }
    Ok(())
}

/// The events of a migration, as `events.k8s.io` has them.
pub fn events(lab: &Lab, name: &str) -> Vec<Value> {
    let mut events = lab.ferry.cluster().list(("events.k8s.io/v1", "Event"), "default");
    events.retain(|event| event["regarding"]["name"] == name);
    events
}

/// Writes the status of a Provider, as a manager other than ours does.
pub fn report_provider(lab: &Lab, name: &str, status: &Value) {
    Runtime::new().unwrap().block_on(async {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("infra.virtrigaud.io", "v1beta1", "Provider"));
        let client = lab.ferry.cluster().client().await;
        let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    });
}

/// Runs the plugin of kubectl; it must succeed.
#[track_caller]
pub fn kubectl(lab: &Lab, args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_vmferry"))
        .arg("kube")
        .args(args)
        .env("KUBECONFIG", lab.ferry.cluster().kubeconfig())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `kubectl get` prints of a migration: names of the columns and the cells, those of `-o wide` last.
pub fn columns(lab: &Lab, name: &str) -> Vec<(String, bool, Value)> {
    let path = format!("/apis/{API}/namespaces/default/vmmigrations/{name}");
    let request = Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = Runtime::new().unwrap().block_on(async {
        let client = lab.ferry.cluster().client().await;
        client.request(request).await.unwrap()
    });
    let definitions = table["columnDefinitions"].as_array().unwrap().iter();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    definitions
        .zip(cells)
        .map(|(column, cell)| {
            let name = column["name"].as_str().unwrap().to_owned();
            (name, column["priority"] == 1, cell.clone())
        })
        .collect()
}
