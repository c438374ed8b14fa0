//! A state directory through its public face.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use vmferry_api::manifest::{Manifests, Source};
use vmferry_api::{Key, Phase, Time, VMMigration, VMMigrationStatus, VirtualMachine, VirtualMachineStatus};
use vmferry_engine::port::{Clock, Event, EventType, Events, Store};
use vmferry_local::{Change, Kind, LocalEvents, LocalStore, StateDir};

const MANIFESTS: &str = "
apiVersion: infra.virtrigaud.io/v1beta1
kind: VMMigration
metadata: {name: web, labels: {app: x}}
spec:
  sourceName: web
  sourceNamespace: default
  targetProviderRef: {name: b}
  targetName: web-2
  storage: {type: nfs, path: /mnt/staging}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: {name: b}
spec: {type: libvirt, endpoint: 'qemu:///system', credentialSecretRef: {name: s}, rateLimit: {qps: 1}}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VirtualMachine
metadata: {name: web}
spec: {providerRef: {name: b}, imageRef: {name: x}}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2}
";

fn parse(text: &str) -> Manifests {
    let name = "a.yaml".to_owned();
    Manifests::parse(&[Source {
        name,
        text: text.to_owned(),
    }])
    .unwrap()
}

fn now() -> Time {
    Time("2026-01-01T00:00:00Z".parse().unwrap())
}

fn web() -> Key {
    Key::new("default", "web")
}

fn open(path: &Path) -> LocalStore {
    LocalStore::load(Arc::new(StateDir::open(path).unwrap()), None).unwrap()
}

fn applied(path: &Path) -> LocalStore {
    let store = open(path);
    store
        .apply(&parse(MANIFESTS), &[PathBuf::from("/m/a.yaml")], &now())
        .unwrap();
    store
}

async fn web_of(store: &LocalStore) -> VMMigration {
    store.migration(&web()).await.unwrap().unwrap()
}

async fn save_phase(store: &LocalStore, phase: Phase) {
    let mut migration = web_of(store).await;
    migration.status = Some(VMMigrationStatus {
        phase,
        ..VMMigrationStatus::default()
    });
    migration.metadata.finalizers = Some(vec!["f".to_owned()]);
    store.save(&migration).await.unwrap();
}

fn with_id(vm: VirtualMachine, id: &str) -> VirtualMachine {
    let id = Some(id.to_owned());
    VirtualMachine {
        status: Some(VirtualMachineStatus {
            id,
            ..VirtualMachineStatus::default()
        }),
        ..vm
    }
}

#[tokio::test]
async fn what_is_applied_and_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    save_phase(&store, Phase::Transferring).await;
    let before = web_of(&store).await;
    drop(store);
    let store = open(dir.path());
    let after = web_of(&store).await;
    assert_eq!(before, after);
    assert_eq!(after.metadata.generation, Some(1));
    assert_eq!(after.metadata.creation_timestamp, Some(now()));
    assert_eq!(after.metadata.uid.as_ref().unwrap().len(), 36);
    assert_eq!(after.status.unwrap().phase, Phase::Transferring);
    let provider = store.provider(&Key::new("default", "b")).await.unwrap().unwrap();
    assert!(provider.spec.other.contains_key("rateLimit"));
    assert_eq!(store.record(&web()).unwrap().manifests, [PathBuf::from("/m/a.yaml")]);
}

#[tokio::test]
async fn no_secret_is_ever_written() {
    fn texts(path: &Path) -> String {
        std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                if path.is_dir() {
                    texts(&path)
                } else {
                    std::fs::read_to_string(path).unwrap()
                }
            })
            .collect()
    }
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    save_phase(&store, Phase::Validating).await;
    let secret = Key::new("default", "s");
    assert!(store.secret(&secret).await.unwrap().is_some());
    let all = texts(dir.path());
    assert!(all.contains("qemu:///system") && !all.contains("hunter2") && !all.contains("aHVudGVyMg"));
    drop(store);
    assert!(open(dir.path()).secret(&secret).await.unwrap().is_none());
}

#[tokio::test]
async fn applying_again_changes_nothing_and_keeps_what_the_engine_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let mut migration = web_of(&store).await;
    migration
        .metadata
        .labels
        .get_or_insert_default()
        .insert("engine".to_owned(), "x".to_owned());
    store.save(&migration).await.unwrap();
    let applied = store
        .apply(&parse(MANIFESTS), &[PathBuf::from("/m/a.yaml")], &now())
        .unwrap();
    assert_eq!(applied.migrations, [(web(), Change::Unchanged)]);
    assert_eq!(web_of(&store).await, migration);
}

#[tokio::test]
async fn a_changed_spec_is_a_new_generation_and_what_is_under_way_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let target = parse(&MANIFESTS.replace("web-2", "web-3"));
    let policy = parse(&MANIFESTS.replacen("spec:\n", "spec:\n  retryPolicy: {maxAttempts: 9}\n", 1));

    assert_eq!(store.refusals(&target), []);
    assert_eq!(
        store.apply(&target, &[], &now()).unwrap().migrations,
        [(web(), Change::Changed)]
    );
    assert_eq!(web_of(&store).await.metadata.generation, Some(2));
    store.apply(&parse(MANIFESTS), &[], &now()).unwrap();

    save_phase(&store, Phase::Importing).await;
    let before = web_of(&store).await;
    let refusals = store.refusals(&target);
    assert_eq!(refusals.len(), 1);
    let text = refusals[0].to_string();
    assert!(
        text.starts_with("a.yaml, document 1: VMMigration default/web: spec.targetName is \"web-3\""),
        "{text}"
    );
    store.apply(&target, &[], &now()).unwrap();
    assert_eq!(web_of(&store).await, before);

    assert_eq!(store.refusals(&policy), []);
    assert_eq!(
        store.apply(&policy, &[], &now()).unwrap().migrations,
        [(web(), Change::Changed)]
    );
    assert_eq!(web_of(&store).await.metadata.generation, Some(4));
}

#[tokio::test]
async fn a_migration_disappears_with_its_last_finalizer_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    save_phase(&store, Phase::Importing).await;
    store.mark_deleted(&web(), now()).await.unwrap();
    let mut migration = web_of(&store).await;
    assert_eq!(migration.metadata.deletion_timestamp, Some(now()));
    assert_eq!(store.refusals(&parse(MANIFESTS)).len(), 1);
    migration.metadata.finalizers = None;
    store.save(&migration).await.unwrap();
    assert_eq!(store.migration(&web()).await.unwrap(), None);
    assert!(store.save(&migration).await.unwrap_err().conflict);
    drop(store);
    assert_eq!(open(dir.path()).records(), []);
}

#[tokio::test]
async fn a_migration_that_never_began_disappears_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    store.mark_deleted(&web(), now()).await.unwrap();
    assert_eq!(store.records(), []);
}

#[tokio::test]
async fn a_migration_made_anew_is_not_overwritten_by_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let old = web_of(&store).await;
    store.mark_deleted(&web(), now()).await.unwrap();
    store.apply(&parse(MANIFESTS), &[], &now()).unwrap();
    assert_ne!(web_of(&store).await.metadata.uid, old.metadata.uid);
    assert!(store.save(&old).await.unwrap_err().conflict);
}

#[tokio::test]
async fn a_virtual_machine_that_exists_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let known = store.virtual_machine(&web()).await.unwrap().unwrap();
    let mut vm = with_id(known.clone(), "other");
    assert!(!store.create_virtual_machine(&vm).await.unwrap());
    assert_eq!(store.virtual_machine(&web()).await.unwrap(), Some(known));
    vm.metadata.name = Some("new".to_owned());
    assert!(store.create_virtual_machine(&vm).await.unwrap());
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        store.virtual_machine(&Key::new("default", "new")).await.unwrap(),
        Some(vm)
    );
}

#[tokio::test]
async fn a_manifest_without_a_status_keeps_the_known_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let vm = with_id(store.virtual_machine(&web()).await.unwrap().unwrap(), "dom");
    let mut manifests = parse(MANIFESTS);
    manifests.virtual_machines.get_mut(&web()).unwrap().object = vm.clone();
    store.apply(&manifests, &[], &now()).unwrap();
    store.apply(&parse(MANIFESTS), &[], &now()).unwrap();
    assert_eq!(store.virtual_machine(&web()).await.unwrap(), Some(vm));
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(applied(dir.path()));
    let path: PathBuf = dir.path().join("migrations/default/web.json");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let Err(error) = LocalStore::load(Arc::new(StateDir::open(dir.path()).unwrap()), None) else {
        panic!("a damaged file was read");
    };
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("migrations/default/web.json"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), &whole[..whole.len() / 2]);
}

#[tokio::test]
async fn a_store_to_look_at_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let worker = applied(dir.path());
    let reader = LocalStore::load(Arc::new(StateDir::look(dir.path()).unwrap()), None).unwrap();
    let mut migration = web_of(&reader).await;
    migration.status = Some(VMMigrationStatus::default());
    assert!(reader.save(&migration).await.is_err());
    assert_eq!(web_of(&worker).await.status, None);
}

/// What a crash between any two system calls of a write can leave: the old file, with or without a half-written one
/// beside it, or the new one.
#[tokio::test]
async fn a_write_that_a_crash_cut_short_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    drop(applied(dir.path()));
    let folder = dir.path().join("migrations/default");
    let whole = std::fs::read(folder.join("web.json")).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1, whole.len()] {
        std::fs::write(folder.join(".web.json.tmp"), &whole[..cut]).unwrap();
        std::fs::write(folder.join(".new.json.tmp"), &whole[..cut]).unwrap();
        let store = open(dir.path());
        assert_eq!(store.records().len(), 1);
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            1,
            "what was half-written is swept"
        );
        save_phase(&store, Phase::Pending).await;
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Time {
        now()
    }
}

#[tokio::test]
async fn events_are_kept_in_order_and_a_torn_line_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = applied(dir.path());
    let migration = web_of(&store).await;
    let events = LocalEvents::new(Arc::clone(store.dir()), Arc::new(Fixed), None);
    let event = |reason: &str| Event {
        event_type: EventType::Normal,
        reason: reason.to_owned(),
        message: "m".to_owned(),
    };
    events.publish(&migration, event("One")).await;
    let path = dir.path().join("events/default/web.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"time\":\"2026-");
    std::fs::write(&path, text).unwrap();
    events.publish(&migration, event("Two")).await;
    let mut stranger = migration.clone();
    stranger.metadata.uid = Some("another".to_owned());
    events.publish(&stranger, event("Three")).await;
    let uid = migration.metadata.uid.unwrap();
    let kept = LocalEvents::of(store.dir(), &web(), &uid).unwrap();
    let reasons: Vec<_> = kept.iter().map(|each| each.event.reason.as_str()).collect();
    assert_eq!(reasons, ["One", "Two"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_status_is_read_back_as_it_was_saved(
        progress in 0_u8..=100,
        message in proptest::option::of("\\PC{0,40}"),
        bytes in proptest::option::of(any::<i64>()),
        retries in proptest::option::of(any::<u32>()),
        names in proptest::collection::vec("\\PC{0,10}", 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = applied(dir.path());
        let mut migration = runtime.block_on(web_of(&store));
        let disk = |name| vmferry_api::DiskStatus { name, ..Default::default() };
        migration.status = Some(VMMigrationStatus {
            progress,
            message,
            bytes_transferred: bytes,
            retry_attempts: retries,
            disks: names.into_iter().map(disk).collect(),
            ..VMMigrationStatus::default()
        });
        runtime.block_on(store.save(&migration)).unwrap();
        drop(store);
        prop_assert_eq!(runtime.block_on(web_of(&open(dir.path()))), migration);
    }
}
