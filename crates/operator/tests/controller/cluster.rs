//! A cluster that misbehaves: bad objects, a restart, rights that are taken away, a namespace that goes.

use serde_json::{Value, json};
use vmferry_testkit::kube::{Cluster, ClusterSpec};

use crate::support::{MIGRATION, NS, Running, cluster, crds, found, migration, retries, until};

/// Our CRDs as they might have been once: durations may be anything.
fn lax() -> Vec<Value> {
    let mut crds = crds();
    for crd in &mut crds {
        let policy =
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/retryPolicy/properties/backoffDuration";
        if let Some(duration) = crd.pointer_mut(policy) {
            *duration = json!({"type": "string"});
        }
    }
    crds
}

fn accepted(migration: &Value) -> Option<&Value> {
    let conditions = migration["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Accepted")
}

fn events(cluster: &Cluster, reason: &str) -> Vec<Value> {
    let mut events = cluster.list(("events.k8s.io/v1", "Event"), NS);
    events.retain(|event| event["reason"] == reason);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_object_stops_no_other_and_says_what_is_wrong_until_it_is_corrected() {
    let cluster = Cluster::with(&ClusterSpec {
        crds: lax(),
        controllers: false,
        ..ClusterSpec::default()
    });
    let mut bad = migration(NS, "bad");
    bad["spec"]["retryPolicy"]["backoffDuration"] = json!("three parsecs");
    cluster.apply(&bad).unwrap();
    let operator = Running::alone(cluster.client().await);
    cluster.apply(&migration(NS, "good")).unwrap();
    until("a retry of the good one", || retries(&cluster, NS, "good") >= 1);

    until("the condition", || accepted(&found(&cluster, NS, "bad")).is_some());
    let object = found(&cluster, NS, "bad");
    let condition = accepted(&object).unwrap();
    assert_eq!(condition["status"], "False");
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("three parsecs"), "{message}");
    assert_eq!(object["metadata"].get("finalizers"), None, "it is left alone");
    assert_eq!(events(&cluster, "InvalidObject").len(), 1);

    cluster.apply(&migration(NS, "bad")).unwrap();
    until("a retry of the corrected one", || retries(&cluster, NS, "bad") >= 1);
    until("the end of the condition", || {
        accepted(&found(&cluster, NS, "bad")).is_none()
    });
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_is_taken_up_where_it_was() {
    let mut cluster = cluster();
    let operator = Running::alone(cluster.client().await);
    cluster.apply(&migration(NS, "before")).unwrap();
    until("a retry", || retries(&cluster, NS, "before") >= 1);
    cluster.kill_api_server();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    cluster.start_api_server();
    let before = retries(&cluster, NS, "before");
    until("a retry after the restart", || retries(&cluster, NS, "before") > before);
    cluster.apply(&migration(NS, "after")).unwrap();
    until("a retry of a new one", || retries(&cluster, NS, "after") >= 1);
    operator.stop().await;
}

/// The rights that these migrations need, but for those on Secrets.
fn role(secrets: bool) -> Value {
    let mut rules = json!([
        {"apiGroups": ["infra.virtrigaud.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["events.k8s.io", ""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]);
    if secrets {
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
        rules.as_array_mut().unwrap().push(rule);
    }
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "op"}, "rules": rules})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lacks_something_is_told_to_the_user_and_waited_for() {
    let cluster = cluster();
    cluster.apply(&role(false)).unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "op"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "op"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "op"}]
    });
    cluster.apply(&binding).unwrap();
    let mut wants_secret = migration(NS, "m");
    wants_secret["spec"]["storage"]["credentialsSecretRef"] = json!({"name": "login"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": NS}, "stringData": {"token": "hunter2"}
    });
    cluster.apply(&secret).unwrap();
    cluster.apply(&wants_secret).unwrap();
    let operator = Running::alone(cluster.user("op", &[]).client().await);

    until("the event", || !events(&cluster, "ClusterFailed").is_empty());
    until("the message", || {
        let object = found(&cluster, NS, "m");
        let message = object["status"]["message"].as_str().unwrap_or_default();
        message.contains("Secret default/login") && message.contains("grant it")
    });
    assert_eq!(retries(&cluster, NS, "m"), 0, "it costs the migration no attempt");
    cluster.apply(&role(true)).unwrap();
    until("a retry", || retries(&cluster, NS, "m") >= 1);
    assert!(!found(&cluster, NS, "m").to_string().contains("hunter2"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_its_migrations() {
    let cluster = Cluster::with(&ClusterSpec {
        crds: crds(),
        ..ClusterSpec::default()
    });
    let operator = Running::alone(cluster.client().await);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"}});
    cluster.apply(&namespace).unwrap();
    cluster.apply(&migration("doomed", "m")).unwrap();
    cluster.apply(&migration(NS, "stays")).unwrap();
    until("a retry", || retries(&cluster, "doomed", "m") >= 1);
    cluster.delete(("v1", "Namespace"), NS, "doomed");
    until("the end of the namespace", || {
        cluster.get(("v1", "Namespace"), NS, "doomed").is_none()
    });
    assert!(cluster.get(MIGRATION, "doomed", "m").is_none());
    let before = retries(&cluster, NS, "stays");
    until("a retry elsewhere", || retries(&cluster, NS, "stays") > before);
    operator.stop().await;
}
