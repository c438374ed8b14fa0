//! What is saved, and what is not.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;
use vmferry_api::names::FINALIZER;
use vmferry_api::{Key, Phase, VMMigration, VirtualMachine};
use vmferry_engine::port::Store;
use vmferry_operator::{KubeStore, Leadership};
use vmferry_testkit::kube::Cluster;

use crate::support::{MIGRATION, NS, cluster, found, migration};

/// A store whose caches know everything, and what keeps them so.
async fn store(client: Client, leadership: Leadership) -> (Arc<KubeStore>, AbortOnDropHandle<()>) {
    let store = Arc::new(KubeStore::new(client, leadership, Vec::new()));
    let watching = Arc::clone(&store);
    let watch = tokio::spawn(async move { watching.watch(None, |_| {}).await });
    store.synced().await;
    (store, AbortOnDropHandle::new(watch))
}

/// The migration that every test here begins with, as the store reads it.
async fn begun(cluster: &Cluster, store: &KubeStore) -> VMMigration {
    cluster.apply(&migration(NS, "m")).unwrap();
    for _ in 0..100 {
        if let Some(migration) = read(store).await {
            return migration;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the watch brings nothing");
}

async fn read(store: &KubeStore) -> Option<VMMigration> {
    store.migration(&Key::new(NS, "m")).await.unwrap()
}

/// As the first step of the engine leaves it.
fn taken_up(mut migration: VMMigration) -> VMMigration {
    migration.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    migration.metadata.labels = Some([("made".to_owned(), "here".to_owned())].into());
    let status = migration.status.get_or_insert_default();
    status.phase = Phase::Validating;
    status.message = Some("looking".to_owned());
    status.snapshot_id = Some("snap".to_owned());
    migration
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_is_seen_at_once_whole_and_only_where_something_differs() {
    let cluster = cluster();
    let (store, _watch) = store(cluster.client().await, Leadership::always()).await;
    let new = taken_up(begun(&cluster, &store).await);
    store.save(&new).await.unwrap();

    let known = read(&store).await.unwrap();
    let object = found(&cluster, NS, "m");
    assert_eq!(
        known.metadata.resource_version,
        Some(version(&object)),
        "the store knows what it wrote"
    );
    assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(object["metadata"]["labels"], json!({"made": "here"}));
    assert_eq!(object["status"]["snapshotId"], "snap");
    let managers: Vec<_> = object["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    assert!(
        managers
            .iter()
            .any(|entry| entry["manager"] == "vmferry" && entry["operation"] == "Apply")
    );

    store.save(&known).await.unwrap();
    assert_eq!(
        version(&found(&cluster, NS, "m")),
        version(&object),
        "an equal state is not written"
    );

    let mut less = known;
    less.status.as_mut().unwrap().snapshot_id = None;
    store.save(&less).await.unwrap();
    let object = found(&cluster, NS, "m");
    assert_eq!(object["status"].get("snapshotId"), None, "what is left out is gone");
    assert_eq!(object["status"]["message"], "looking");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over_what_changed_or_is_another_or_without_leading() {
    let cluster = cluster();
    let (store_, _watch) = store(cluster.client().await, Leadership::always()).await;
    let (idle, _idle_watch) = store(cluster.client().await, Leadership::none()).await;
    let old = begun(&cluster, &store_).await;

    let refused = idle.save(&taken_up(old.clone())).await.unwrap_err();
    assert!(
        refused.conflict && refused.to_string().contains("does not lead"),
        "{refused}"
    );

    let mut changed = migration(NS, "m");
    changed["metadata"]["annotations"] = json!({"by": "a user"});
    cluster.apply(&changed).unwrap();
    let refused = store_.save(&taken_up(old.clone())).await.unwrap_err();
    assert!(refused.conflict, "{refused}");
    assert_eq!(found(&cluster, NS, "m").get("status"), None);
    let now = read(&store_).await.unwrap();
    assert_eq!(
        now.metadata.annotations.as_ref().unwrap()["by"],
        "a user",
        "the next step knows of it"
    );
    store_.save(&taken_up(now)).await.unwrap();

    let held = read(&store_).await.unwrap();
    cluster.delete(MIGRATION, NS, "m");
    let mut let_go = held.clone();
    let_go.metadata.finalizers = Some(Vec::new());
    let_go.metadata.deletion_timestamp = found(&cluster, NS, "m")["metadata"]["deletionTimestamp"]
        .as_str()
        .map(|time| vmferry_api::Time(time.parse().unwrap()));
    assert!(let_go.metadata.deletion_timestamp.is_some());
    // What is known is older than the deletion, so this is refused, and the second try is not.
    while let Err(error) = store_.save(&let_go).await {
        assert!(error.conflict, "{error}");
        let_go.metadata.resource_version = read(&store_).await.unwrap().metadata.resource_version;
    }
    assert_eq!(
        read(&store_).await,
        None,
        "it is known to be gone before the watch says so"
    );

    cluster.apply(&migration(NS, "m")).unwrap();
    let refused = store_.save(&taken_up(held)).await.unwrap_err();
    assert!(refused.conflict, "{refused}");
    assert_eq!(
        found(&cluster, NS, "m").get("status"),
        None,
        "another one of that name is left alone"
    );
}

fn declared(namespace: &str) -> VirtualMachine {
    let disk = json!({"diskID": "default/web-0", "migrationRef": {"name": "m", "namespace": NS}});
    let vm = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VirtualMachine",
        "metadata": {"name": "arrived", "namespace": namespace},
        "spec": {"providerRef": {"name": "b"}, "importedDisk": disk},
        "status": {"id": "uuid-of-web"}
    });
    serde_json::from_value(vm).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_declared_whole_and_only_where_there_is_a_place_for_it() {
    let cluster = cluster();
    let (store, _watch) = store(cluster.client().await, Leadership::always()).await;
    let refused = store.create_virtual_machine(&declared("nowhere")).await.unwrap_err();
    assert!(!refused.conflict, "reading it again does not help: {refused}");
    assert!(refused.to_string().contains("nowhere"), "{refused}");

    // As a process leaves it that was killed, or refused, between the two writes.
    let half = VirtualMachine {
        status: None,
        ..declared(NS)
    };
    cluster.apply(&serde_json::to_value(&half).unwrap()).unwrap();
    assert!(!store.create_virtual_machine(&declared(NS)).await.unwrap());
    let vm = ("infra.virtrigaud.io/v1beta1", "VirtualMachine");
    let found = cluster.get(vm, NS, "arrived").unwrap();
    assert_eq!(found["status"]["id"], "uuid-of-web");
}
