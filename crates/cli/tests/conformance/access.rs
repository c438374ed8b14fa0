//! The reference's "RBAC Requirements": who has that role, and no other, can work with migrations.

use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::fields::cluster;

/// The rules, as the reference has them.
fn rules() -> Value {
    json!([
        {
            "apiGroups": ["infra.virtrigaud.io"], "resources": ["vmmigrations"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        },
        { "apiGroups": ["infra.virtrigaud.io"], "resources": ["vmmigrations/status"], "verbs": ["get", "update", "patch"] },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"] },
        { "apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"] },
    ])
}

/// The role that is installed for those who migrate.
fn installed() -> Value {
    let manifests = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/manifests/install.yaml"
    ));
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    let is_it = |document: &&Value| document["kind"] == "ClusterRole" && document["metadata"]["name"] == "vmferry-user";
    documents.iter().find(is_it).unwrap().clone()
}

#[test]
fn the_role_of_the_reference_is_installed_and_allows_what_it_says_and_no_more() {
    let role = installed();
    assert_eq!(role["rules"], rules(), "nothing less, and nothing more");
    let cluster = cluster();
    cluster.apply(&role).unwrap();
    cluster
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "migrates", "namespace": "default" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "vmferry-user" },
            "subjects": [{ "kind": "ServiceAccount", "name": "pipeline", "namespace": "default" }],
        }))
        .unwrap();
    let user = cluster.user("system:serviceaccount:default:pipeline", &[]);
    Runtime::new().unwrap().block_on(async {
        let client = user.client().await;
        let mut allowed = Vec::new();
        let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
        for (group, resource) in [
            ("infra.virtrigaud.io", "vmmigrations"),
            ("infra.virtrigaud.io", "vmmigrations/status"),
            ("", "secrets"),
            ("", "events"),
            ("infra.virtrigaud.io", "providers"),
            ("", "pods"),
        ] {
            let may = |verb: &'static str| may(client.clone(), group, resource, verb);
            let mut found = Vec::new();
            for verb in verbs {
                if may(verb).await {
                    found.push(verb);
                }
            }
            if !found.is_empty() {
                allowed.push(json!({ "apiGroups": [group], "resources": [resource], "verbs": found }));
            }
        }
        assert_eq!(json!(allowed), rules());
        // And a migration can be made with it.
        let api: Api<vmferry_api::VMMigration> = Api::namespaced(client, "default");
        let migration = serde_json::from_value(super::fields::minimal("m")).unwrap();
        api.create(&PostParams::default(), &migration).await.unwrap();
    });
}

async fn may(client: kube::Client, group: &str, resource: &str, verb: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({ "spec": { "resourceAttributes": {
        "namespace": "default", "group": group, "resource": resource, "subresource": subresource, "verb": verb,
    } } });
    let api: Api<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview> = Api::all(client);
    let review = serde_json::from_value(review).unwrap();
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}
