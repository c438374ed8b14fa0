//! A real API server, and Pods that run.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use vmferry_api::{Phase, VMMigration};
use vmferry_testkit::Must;
use vmferry_testkit::kube::{Cluster, ClusterSpec};

/// How long anything may take that a controller does.
const LIMIT: Duration = Duration::from_secs(30);

fn bare() -> ClusterSpec {
    ClusterSpec {
        crds: vmferry_api::crd::all().iter().map(|crd| crd.json.clone()).collect(),
        controllers: false,
        ..ClusterSpec::default()
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).must("read an object")
}

fn migration(name: &str) -> VMMigration {
    object(json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VMMigration",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "sourceName": "traveller",
            "sourceNamespace": "default",
            "targetProviderRef": { "name": "b" },
            "targetName": "arrived",
            "storage": { "type": "nfs", "path": "/staging" },
        },
    }))
}

#[tokio::test]
async fn a_migration_keeps_its_status_when_the_api_server_is_killed() {
    let mut cluster = Cluster::with(&bare());
    let api: Api<VMMigration> = Api::namespaced(cluster.client().await, "default");
    let made = api.create(&PostParams::default(), &migration("m")).await;
    assert_eq!(made.must("create").spec.target_name, "arrived");
    let status = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VMMigration",
        "status": { "phase": "Exporting" },
    });
    let apply = PatchParams::apply("test").force();
    let patched = api.patch_status("m", &apply, &Patch::Apply(&status)).await;
    patched.must("apply a status");

    cluster.kill_api_server();
    assert!(api.get("m").await.is_err());
    cluster.start_api_server();

    let kept = api.get("m").await.must("get").status.must("have a status");
    assert_eq!(kept.phase, Phase::Exporting);
}

#[tokio::test]
async fn a_user_may_do_what_a_role_says_and_no_more() {
    let cluster = Cluster::with(&ClusterSpec {
        controllers: false,
        ..ClusterSpec::default()
    });
    let admin = cluster.client().await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers" }],
    });
    let (roles, bindings) = (
        Api::namespaced(admin.clone(), "default"),
        Api::namespaced(admin, "default"),
    );
    let role: k8s_openapi::api::rbac::v1::Role = object(role);
    let binding: k8s_openapi::api::rbac::v1::RoleBinding = object(binding);
    roles.create(&PostParams::default(), &role).await.must("create a role");
    bindings
        .create(&PostParams::default(), &binding)
        .await
        .must("create a binding");

    let reader = cluster.user("alice", &["readers"]).client().await;
    let maps: Api<ConfigMap> = Api::namespaced(reader.clone(), "default");
    // A new binding takes a moment to count.
    let start = Instant::now();
    while maps.list(&ListParams::default()).await.is_err() {
        assert!(start.elapsed() < LIMIT, "alice may never list");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("new".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let denied = maps.create(&PostParams::default(), &map).await;
    let pods: Api<Pod> = Api::namespaced(reader, "default");
    let others = [denied.map(drop), pods.list(&ListParams::default()).await.map(drop)];
    for denied in others {
        let error = denied.err().must("be denied");
        assert!(
            matches!(&error, kube::Error::Api(status) if status.code == 403),
            "{error:?}"
        );
    }
}
