//! What the tests share: the chart's objects, and ways to a cluster.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vmferry_testkit::kube::{Cluster, ClusterSpec};

/// How long a change of rights or of a configuration may take to be in force.
const LIMIT: Duration = Duration::from_secs(30);

/// A cluster with our CRDs and no controllers.
pub fn cluster() -> Cluster {
    let crds = vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect();
    Cluster::with(&ClusterSpec {
        crds,
        controllers: false,
        ..ClusterSpec::default()
    })
}

/// A path in the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The documents of a YAML file.
pub fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let found =
        serde_saphyr::from_multiple::<Value>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.into_iter().filter(|it| !it.is_null()).collect()
}

/// An object of the committed manifests.
pub fn rendered(file: &str, kind: &str, name: &str) -> Value {
    let found = documents(&project("deploy/manifests").join(file));
    let wanted = |it: &Value| it["kind"] == kind && it["metadata"]["name"] == name;
    found
        .into_iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("{file} has no {kind} {name}"))
}

pub async fn namespace(client: &Client, name: &str) {
    let object: Namespace = of(json!({ "metadata": { "name": name } }));
    Api::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

/// JSON as a type.
pub fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The way to the objects that are like this one.
pub fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

pub async fn apply(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let how = PatchParams::apply("test").force();
    api(client, object)
        .patch(name, &how, &Patch::Apply(object))
        .await
        .unwrap();
}

pub async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !check().await {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
