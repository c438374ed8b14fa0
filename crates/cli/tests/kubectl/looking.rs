//! `status`, `describe`, `logs`.

use std::io::{BufRead, BufReader};

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use vmferry_testkit::front::{Action, Front, Reply, Rule};

use super::support::{Bed, NS, ended, moving};

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_each_disk_with_its_rate_and_the_time_that_is_left() {
    let bed = Bed::new().await;
    bed.run(&["status"]).said(&["no migrations found", "-A"]);
    bed.migration("web", moving()).await;
    bed.migration(
        "db",
        json!({ "phase": "Pending", "message": "Waiting for a free slot" }),
    )
    .await;
    let ran = bed.run(&["status"]);
    ran.said(&[
        "NAME",
        "PROGRESS",
        "vda",
        "45 % of 1000 B",
        "2.0 KiB/s",
        "1m30s",
        "vdb",
        "Waiting for a free slot",
    ]);
    assert!(!ran.out.contains("NAMESPACE"), "{}", ran.out);
    let named = bed.run(&["status", "web"]);
    named.said(&["vda"]);
    assert!(!named.out.contains("\ndb "), "{}", named.out);
    bed.run(&["status", "-n", "kube-system"]).said(&["no migrations found"]);
    bed.run(&["status", "-A", "-n", "kube-system"])
        .said(&["NAMESPACE", "web", "db"]);
    // The same under its own name, with flags like kubectl's.
    let kubeconfig = bed.cluster.kubeconfig().to_str().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmferry"))
        .env_remove("KUBECONFIG")
        .args([
            "kube",
            "status",
            "web",
            "--kubeconfig",
            kubeconfig,
            "--context",
            "test",
            "-n",
            NS,
        ])
        .output()
        .unwrap();
    super::support::Ran::from(output).said(&["vda"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_explained() {
    let bed = Bed::new().await;
    bed.run(&["status", "web"])
        .refused(1, &["there is no VMMigration default/web", "status -A"]);
    bed.run(&["describe", "other/web"])
        .refused(2, &["no name of a migration", "-n"]);
    bed.run(&["status", "--context", "nowhere"])
        .refused(2, &["no cluster to speak to", "nowhere", "--context"]);
    bed.run(&["status", "--kubeconfig", "/nonexistent"])
        .refused(2, &["/nonexistent", "--kubeconfig"]);
    let nobody = bed.cluster.user("nobody", &[]);
    Bed::run_as(&nobody, &["status"]).refused(
        1,
        &[
            "cannot list VMMigrations",
            "vmmigrations.infra.virtrigaud.io is forbidden",
            "administrator",
        ],
    );
    bed.run(&["logs", "web"]).refused(1, &["there is no VMMigration"]);
    bed.migration("web", json!({ "phase": "Pending" })).await;
    bed.run(&["logs", "web"])
        .refused(1, &["no worker of VMMigration default/web", "Pending", "inline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_what_changes_and_ends_with_the_migration() {
    let bed = Bed::new().await;
    bed.migration("web", moving()).await;
    for (end, code) in [("Ready", 0), ("Failed", 1)] {
        bed.report("web", json!({ "completionTime": null, "phase": "Transferring" }))
            .await;
        let mut child = bed.start(&["status", "web", "--watch"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert!(next().contains("default/web Transferring"));
        bed.report(
            "web",
            json!({ "progress": 31, "disks": [{ "name": "vda", "stagedBytes": 1000, "bytesTransferred": 500 }] }),
        )
        .await;
        assert_eq!(next(), "default/web Transferring 31 %: disk vda 50 %, 500 B of 1000 B");
        bed.report("web", ended(end)).await;
        assert_eq!(next(), format!("default/web {end} 100 %: it is {end}"));
        assert_eq!(child.wait().unwrap().code(), Some(code));
        bed.report("web", moving()).await;
    }
    bed.report("web", json!({ "completionTime": null })).await;
    let mut child = bed.start(&["status", "web", "-w"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("Transferring"));
    bed.api().delete("web", &DeleteParams::default()).await.unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "default/web deleted");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn describing_has_conditions_disks_and_events_of_both_apis() {
    let bed = Bed::new().await;
    let migration = bed.migration("web", moving()).await;
    let event = |name: &str, uid: &str, reason: &str, time: &str| {
        json!({
            "metadata": { "name": name, "namespace": NS }, "type": "Normal", "reason": reason, "message": format!("{reason} said"),
            "involvedObject": { "kind": "VMMigration", "namespace": NS, "name": "web", "uid": uid },
            "firstTimestamp": time, "lastTimestamp": time,
        })
    };
    let uid = migration.uid().unwrap();
    let api: Api<Event> = Api::namespaced(bed.client.clone(), NS);
    for event in [
        event("b", &uid, "SnapshotCreated", "2025-10-16T10:00:30Z"),
        event("a", &uid, "ValidationStarted", "2025-10-16T10:00:01Z"),
        event(
            "c",
            "00000000-0000-0000-0000-000000000000",
            "MigrationFailed",
            "2025-10-16T10:00:02Z",
        ),
    ] {
        let event = serde_json::from_value(event).unwrap();
        api.create(&PostParams::default(), &event).await.unwrap();
    }
    let newer = json!({
        "metadata": { "name": "d", "namespace": NS }, "type": "Normal", "reason": "TransferStarted", "note": "Upload started",
        "regarding": { "kind": "VMMigration", "namespace": NS, "name": "web", "uid": uid }, "action": "Migrate",
        "eventTime": "2025-10-16T10:01:00.000000Z", "reportingController": "x", "reportingInstance": "x",
    });
    let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(bed.client.clone(), NS);
    api.create(&PostParams::default(), &serde_json::from_value(newer).unwrap())
        .await
        .unwrap();
    let ran = bed.run(&["describe", "web"]);
    ran.said(&[
        "Phase:",
        "Transferring, 27 %",
        "UploadInProgress",
        "Disks:",
        "vdb",
        "2.0 KiB/s",
        "Upload started",
    ]);
    assert!(
        !ran.out.contains("MigrationFailed"),
        "of another of its name: {}",
        ran.out
    );
    let places: Vec<_> = ["ValidationStarted", "SnapshotCreated", "TransferStarted"]
        .iter()
        .map(|reason| ran.out.find(reason).unwrap())
        .collect();
    assert!(places.is_sorted(), "{}", ran.out);
}

/// A node, and a pod of it for each migration's UID that is given. The node answers for logs only.
async fn pods(bed: &Bed, node: &Front, pods: &[(&str, &str)]) {
    let address = json!({
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": node.port() } },
    });
    let made = json!({ "metadata": { "name": "node" } });
    let api: Api<Node> = Api::all(bed.client.clone());
    if api.get_opt("node").await.unwrap().is_none() {
        api.create(&PostParams::default(), &serde_json::from_value(made).unwrap())
            .await
            .unwrap();
        let patch = Patch::Merge(json!({ "status": address }));
        api.patch_status("node", &PatchParams::default(), &patch).await.unwrap();
    }
    let api: Api<Pod> = Api::namespaced(bed.client.clone(), NS);
    for (name, uid) in pods {
        let pod: Value = json!({
            "metadata": { "name": name, "labels": { "migration.virtrigaud.io/uid": uid } },
            "spec": {
                "nodeName": "node", "containers": [{ "name": "worker", "image": "x" }], "automountServiceAccountToken": false,
            },
        });
        api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
    }
}

fn answers(node: &Front, pod: &str, text: &str) {
    let reply = Reply::status(200).body(text);
    node.on(Rule::new(Action::Answer(reply)).path(format!("/containerLogs/{NS}/{pod}/worker")));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_those_of_the_migrations_own_workers_one_after_the_other() {
    let bed = Bed::new().await;
    let uid = bed.migration("web", moving()).await.uid().unwrap();
    let node = Front::builder("127.0.0.1:1").tls().start();
    answers(&node, "first", "exporting vda\nhalf of it\n");
    answers(&node, "second", "taken up\n");
    answers(&node, "theirs", "another's\n");
    pods(&bed, &node, &[("first", &uid), ("theirs", "another")]).await;
    let ran = bed.run(&["logs", "web"]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "exporting vda\nhalf of it\n"),
        "{}",
        ran.err
    );
    let mut child = bed.start(&["logs", "web", "-f"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert_eq!(next().as_deref(), Some("exporting vda"));
    assert_eq!(next().as_deref(), Some("half of it"));
    // Creation times are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    pods(&bed, &node, &[("second", &uid)]).await;
    assert_eq!(next().as_deref(), Some("taken up"));
    bed.report("web", ended("Ready")).await;
    assert_eq!(next(), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
