//! `retry` and `cancel`.

use serde_json::json;
use vmferry_api::names::{ANNOTATION_CANCEL, ANNOTATION_RETRY};

use super::support::{Bed, NS, ended, moving};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_asked_for_where_there_is_one_to_make() {
    let bed = Bed::new().await;
    bed.migration("web", ended("Failed")).await;
    bed.run(&["retry", "web"])
        .said(&["VMMigration default/web", "starts again from Pending"]);
    let first = bed.annotation("web", ANNOTATION_RETRY).await.unwrap();
    bed.run(&["retry", "web"]).said(&["starts again"]);
    let second = bed.annotation("web", ANNOTATION_RETRY).await.unwrap();
    assert_ne!(first, second, "each call is a request of its own");
    bed.report("web", json!({ "completionTime": null })).await;
    bed.run(&["retry", "web"]).said(&["cleaned up now"]);
    bed.report(
        "web",
        json!({ "phase": "Importing", "nextRetryTime": "2035-10-16T10:30:00Z" }),
    )
    .await;
    bed.run(&["retry", "web"]).said(&["due now"]);
    for status in [moving(), ended("Ready")] {
        bed.report("web", json!({ "nextRetryTime": null })).await;
        bed.report("web", status).await;
        let before = bed.annotation("web", ANNOTATION_RETRY).await;
        bed.run(&["retry", "web"])
            .refused(1, &["nothing to do for VMMigration default/web"]);
        assert_eq!(bed.annotation("web", ANNOTATION_RETRY).await, before);
    }
    bed.run(&["retry", "nowhere"])
        .refused(1, &["there is no VMMigration default/nowhere"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_asked_for_while_there_is_something_to_undo() {
    let bed = Bed::new().await;
    bed.migration("web", moving()).await;
    bed.run(&["cancel", "web"])
        .said(&["VMMigration default/web", "being undone"]);
    assert!(bed.annotation("web", ANNOTATION_CANCEL).await.is_some());
    assert_eq!(bed.annotation("web", ANNOTATION_RETRY).await, None);
    for phase in ["Ready", "Failed"] {
        bed.report("web", ended(phase)).await;
        bed.run(&["cancel", "web"]).refused(1, &["nothing to do"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_may_not_ask() {
    let bed = Bed::new().await;
    bed.migration("web", moving()).await;
    let looker = bed.cluster.user("looker", &[]);
    for (kind, object) in [
        (
            "Role",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "look", "namespace": NS },
                "rules": [{ "apiGroups": ["infra.virtrigaud.io"], "resources": ["vmmigrations"], "verbs": ["get", "list", "watch"] }],
            }),
        ),
        (
            "RoleBinding",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "name": "look", "namespace": NS },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look" },
                "subjects": [{ "kind": "User", "name": "looker", "apiGroup": "rbac.authorization.k8s.io" }],
            }),
        ),
    ] {
        bed.create(kind, object).await;
    }
    Bed::run_as(&looker, &["status"]).said(&["vda"]);
    Bed::run_as(&looker, &["cancel", "web"]).refused(
        1,
        &[
            "cannot annotate VMMigration default/web",
            "cannot patch resource \"vmmigrations\"",
        ],
    );
    assert_eq!(bed.annotation("web", ANNOTATION_CANCEL).await, None);
}
