//! A real API server, and Pods that run.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use vmferry_api::{Phase, VMMigration};
use vmferry_testkit::Must;
use vmferry_testkit::kube::{Cluster, ClusterSpec, Kubelet};

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

/// A Job in `default` that runs a script.
fn job(name: &str, script: &str) -> Job {
    object(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "labels": { "test": name } },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "restartPolicy": "Never",
            "volumes": [{ "name": "key", "secret": { "secretName": "key" } }],
            "containers": [{
                "name": "main", "image": "any", "command": ["sh", "-c", script, "sh", "$(NAME)", "$$(NAME)"],
                "env": [
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['job-name']" } } },
                    { "name": "DOLLARS", "value": "$$x" },
                ],
                "volumeMounts": [{ "name": "key", "mountPath": "/var/run/keys" }],
            }],
        } } },
    }))
}

/// Looks at the Pods of a Job until they are as wanted.
async fn pods_of(client: &Client, job: &str, what: &str, wanted: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let of_job = ListParams::default().labels(&format!("job-name={job}"));
    let start = Instant::now();
    loop {
        let found = pods.list(&of_job).await.must("list pods").items;
        if wanted(&found) {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "{job} is never {what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_in(phase: &str) -> impl Fn(&[Pod]) -> bool {
    move |pods| matches!(pods, [pod] if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase))
}

#[tokio::test]
async fn the_pods_of_jobs_run_as_processes() {
    let cluster = Cluster::start();
    let kubelet = Kubelet::start(&cluster, "/bin/true");
    let client = cluster.client().await;
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    let create = async |name: &str, script: &str| {
        let made = jobs.create(&PostParams::default(), &job(name, script)).await;
        made.must("create a Job");
    };

    // It waits for its Secret.
    create("good", r#"test "$DOLLARS $1 $2" = '$x good $$(NAME)' && grep -q sesame /var/run/keys/key && grep -q . /var/run/secrets/kubernetes.io/serviceaccount/token && echo well"#).await;
    pods_of(&client, "good", "waiting", |pods| {
        format!("{pods:?}").contains("there is no Secret key")
    })
    .await;
    let key: Secret = object(json!({ "metadata": { "name": "key" }, "stringData": { "key": "open sesame" } }));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    secrets
        .create(&PostParams::default(), &key)
        .await
        .must("create a Secret");
    pods_of(&client, "good", "well", is_in("Succeeded")).await;
    assert!(kubelet.logs().contains("well"), "{}", kubelet.logs());

    create("bad", "exit 3").await;
    let pods = pods_of(&client, "bad", "failed", is_in("Failed")).await;
    assert!(format!("{pods:?}").contains("exit_code: 3"), "{pods:?}");

    // One that says when it is asked to end, and one that does not hear.
    create(
        "polite",
        "trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
    )
    .await;
    pods_of(&client, "polite", "running", is_in("Running")).await;
    let [running] = kubelet.running().try_into().must("find one process");
    assert!(running.name.starts_with("polite-"), "{running:?}");
    while !kubelet.logs().contains("up") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let foreground = DeleteParams::foreground();
    jobs.delete("polite", &foreground).await.must("delete a Job");
    pods_of(&client, "polite", "gone", <[Pod]>::is_empty).await;
    assert!(kubelet.logs().contains("goodbye"), "{}", kubelet.logs());
    assert_eq!(kubelet.running(), []);

    create("deaf", "trap '' TERM; while :; do sleep 0.1; done").await;
    pods_of(&client, "deaf", "running", is_in("Running")).await;
    let pid = kubelet.running()[0].pid;
    drop(kubelet);
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "its process goes with the node"
    );
    pods_of(&client, "deaf", "still thought to run", is_in("Running")).await;
    let _kubelet = Kubelet::start(&cluster, "/bin/true");
    pods_of(&client, "deaf", "found dead", is_in("Failed")).await;
}
