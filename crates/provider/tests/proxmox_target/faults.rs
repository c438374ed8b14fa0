//! What goes wrong on the way, with nothing left.

use std::time::Duration;

use vmferry_block::Buf;
use vmferry_provider::proxmox;
use vmferry_provider::{Creation, ImageFormat, Kind, TargetHost, VolumeId};
use vmferry_testkit::Format;
use vmferry_testkit::proxmox::{Options, Proxmox, Rule, Version};

use crate::site::{Site, Store, create, owner, undo, vm, volume, write, write_as};

async fn made(host: &proxmox::Proxmox) -> VolumeId {
    host.create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap()
        .id
}

#[tokio::test]
async fn an_object_that_cannot_be_fetched_is_uploaded_instead() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let id = made(&host).await;
    // Expired, as S3 says it.
    let expired = Store::start(&file, "403 Forbidden");
    assert!(!expired.pull(&host, &id).await.unwrap());
    // Out of the node's reach.
    let mut gone = Store::start(&file, "200 OK").object();
    gone.url = "http://127.0.0.1:9/x?X-Amz-Signature=hush".to_owned().into();
    let cancel = tokio_util::sync::CancellationToken::new();
    assert!(!host.pull(&id, &owner(), &gone, &cancel).await.unwrap());
    // Not what it was.
    let store = Store::start(&file, "200 OK");
    let mut other = store.object();
    other.checksum = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    assert!(!host.pull(&id, &owner(), &other, &cancel).await.unwrap());
    site.assert_empty();
    write(&host, &id, &file).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_node_that_may_not_fetch_gets_an_upload() {
    let site = Site::with(&Options::new(Version::V9).without("Sys.AccessNetwork"));
    let host = site.host().await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let store = Store::start(&file, "200 OK");
    assert!(!store.pull(&host, &made(&host).await).await.unwrap());
    assert_eq!(store.asked(), 0);
    site.assert_empty();
}

#[tokio::test]
async fn fetching_ends_when_it_is_called_off() {
    let site = Site::new(Version::V9);
    site.cluster.slow_tasks("download", Duration::from_mins(1));
    let host = site.host().await;
    let id = made(&host).await;
    let store = Store::start(&site.image("a.qcow2", Format::Qcow2), "200 OK");
    let cancel = tokio_util::sync::CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel();
    });
    assert!(!host.pull(&id, &owner(), &store.object(), &cancel).await.unwrap());
    assert!(site.cluster.tasks().iter().all(|task| task.status != "running"));
    site.assert_empty();
}

#[tokio::test]
async fn an_upload_that_is_dropped_or_cut_leaves_nothing() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    let sink = host.open_sink(&id, &owner(), 1 << 20, None).await.unwrap();
    sink.write(0, Buf::copy_of(&[1; 1000])).await.unwrap();
    let skipped = sink.write(5000, Buf::copy_of(&[1; 10])).await.unwrap_err();
    assert_eq!(skipped.kind(), Kind::Bug);
    drop(sink);
    site.cluster.on("POST", "/upload", 1, &Rule::CutAfter(100_000));
    let file = site.image("a.qcow2", Format::Qcow2);
    let error = write(&host, &id, &file).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Unreachable | Kind::Failed), "{error}");
    site.cluster.on(
        "POST",
        "/upload",
        1,
        &Rule::Answer(403, "Permission check failed (/storage/local, X.Y)".to_owned()),
    );
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    site.cluster.fail_task(
        "imgcopy",
        Duration::from_millis(300),
        "import failed: No space left on device",
    );
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    vmferry_testkit::wait_for("the spool to be empty", Duration::from_secs(10), || {
        site.cluster.spool().is_empty().then_some(())
    });
    write(&host, &id, &file).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}

/// The node goes on with what came, whoever sent it.
#[tokio::test]
async fn an_upload_that_a_killed_process_left_to_the_node_does_not_come_to_light_later() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    site.cluster.slow_tasks("imgcopy", Duration::from_secs(2));
    let killed = tokio::time::timeout(Duration::from_secs(1), write(&host, &id, &file)).await;
    assert!(killed.is_err(), "{killed:?}");
    undo(&site.host().await, 1).await;
    assert!(site.cluster.tasks().iter().all(|task| task.status != "running"));
    site.assert_empty();
}

#[tokio::test]
async fn an_import_that_fails_is_told_once_and_tried_again() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    site.cluster.fail_task(
        "qmconfig",
        Duration::from_millis(300),
        "copy failed: No space left on device",
    );
    let spec = vm(&[id]);
    let error = create(&host, &spec).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(error.to_string().contains("UPID:pve1:"), "{error}");
    // Another process.
    let made = create(&site.host().await, &spec).await.unwrap();
    let config = site.cluster.vm(&made.name).unwrap().config;
    assert!(!config["description"].contains("failed"), "{config:?}");
    assert_eq!(site.cluster.vms().len(), 1);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn an_import_that_another_process_began_is_waited_for() {
    let site = Site::new(Version::V9);
    site.cluster.slow_tasks("qmconfig", Duration::from_secs(6));
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = vm(&[id]);
    let Creation::UnderWay(what) = host.create_vm(&spec, &owner()).await.unwrap() else {
        panic!("it was done at once");
    };
    assert!(what.contains("disk 1 of 1"), "{what}");
    create(&site.host().await, &spec).await.unwrap();
    let imports = site
        .cluster
        .tasks()
        .iter()
        .filter(|task| task.kind == "qmconfig")
        .count();
    assert_eq!((imports, site.cluster.vms().len()), (1, 1));
    // Deleted while it is at work.
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_vm_is_deleted_in_the_middle_of_its_import() {
    let site = Site::new(Version::V9);
    site.cluster.slow_tasks("qmconfig", Duration::from_mins(1));
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let under_way = host.create_vm(&vm(&[id]), &owner()).await.unwrap();
    assert!(under_way.done().is_none());
    undo(&site.host().await, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn an_id_that_is_taken_meanwhile_is_left_alone() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    site.cluster.take_next_id();
    create(&host, &vm(&[id])).await.unwrap();
    let names: Vec<_> = site.cluster.vms().into_iter().map(|vm| vm.name).collect();
    assert!(
        names.contains(&"stranger".to_owned()) && names.contains(&crate::site::NAME.to_owned()),
        "{names:?}"
    );
    undo(&host, 1).await;
    let names: Vec<_> = site.cluster.vms().into_iter().map(|vm| vm.name).collect();
    assert_eq!(names, ["stranger"]);
    site.assert_sound();
}

#[tokio::test]
async fn a_full_storage_and_a_node_that_is_down_may_pass() {
    let mut site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    site.cluster.fill_storage(Proxmox::LOCAL, 1000);
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    site.cluster.node_down("pve1");
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    site.assert_sound();
}

#[tokio::test]
async fn a_file_on_a_node_that_is_down_is_not_said_to_be_gone() {
    let mut site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = volume(0, ImageFormat::Qcow2);
    for node in [Some("pve1".to_owned()), None] {
        site.config.node = node;
        site.cluster.node_down("pve1");
        let error = site.host().await.delete_volume(&spec, &owner()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains("pve1"), "{error}");
        site.cluster.node_up("pve1");
    }
    // One that can have no file is no obstacle, and neither is one that is no node any more.
    site.cluster.node_down("pve2");
    for node in ["pve1", "pve3"] {
        site.config.node = Some(node.to_owned());
        site.host().await.delete_volume(&spec, &owner()).await.unwrap();
    }
    site.assert_empty();
}

#[tokio::test]
async fn a_node_that_is_down_holds_back_only_what_may_be_on_it() {
    let mut site = Site::new(Version::V9);
    site.config.node = None;
    site.config.storage = Some(Proxmox::SHARED.to_owned());
    site.config.import_storage = Some(Proxmox::SHARED.to_owned());
    let host = site.host().await;
    let spec = volume(0, ImageFormat::Qcow2);
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let node = if id.0.contains("@pve1/") { "pve1" } else { "pve2" };
    site.cluster.node_down(node);
    // All nodes see the storage of imports: another one deletes the file.
    site.host().await.delete_volume(&spec, &owner()).await.unwrap();
    assert_eq!(site.cluster.volumes(), [""; 0]);
    // Not so where it may be another storage.
    site.config.import_storage = None;
    let error = site.host().await.delete_volume(&spec, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().contains(node), "{error}");
    site.assert_empty();
}

#[tokio::test]
async fn an_upload_of_something_else_fails_and_leaves_nothing() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let bytes = std::fs::read(&file).unwrap();
    let other = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let error = write_as(&host, &id, &bytes, other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("checksum mismatch"), "{error}");
    site.assert_empty();
    write(&host, &id, &file).await.unwrap();
    let sent = site.cluster.calls_of("POST", "/upload").pop().unwrap();
    assert_eq!(sent.params["checksum-algorithm"], "sha256");
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_vm_that_is_locked_is_waited_for() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = vm(&[id]);
    site.cluster.fail_task("qmconfig", Duration::ZERO, "copy failed");
    create(&host, &spec).await.unwrap_err();
    let number = site.cluster.vm(crate::site::NAME).unwrap().id;
    site.cluster.lock_vm(number, Some("backup"));
    for error in [
        create(&host, &spec).await.unwrap_err(),
        host.delete_created(crate::site::NAME, &owner()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Busy, "{error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
    site.cluster.lock_vm(number, None);
    create(&host, &spec).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_node_that_goes_down_while_it_imports_is_waited_for() {
    let mut site = Site::new(Version::V9);
    site.cluster.slow_tasks("qmconfig", Duration::from_secs(5));
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = vm(&[id]);
    assert!(host.create_vm(&spec, &owner()).await.unwrap().done().is_none());
    site.cluster.node_down("pve1");
    let error = create(&host, &spec).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    let error = host.delete_created(crate::site::NAME, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    site.cluster.node_up("pve1");
    create(&host, &spec).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_vm_that_leaves_its_staged_file_behind_is_told() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = vm(&[id]);
    site.cluster.fail_task("qmconfig", Duration::ZERO, "copy failed");
    create(&host, &spec).await.unwrap_err();
    let number = site.cluster.vm(crate::site::NAME).unwrap().id;
    site.cluster.move_vm(number, "pve2");
    let error = create(&host, &spec).await.unwrap_err();
    assert!(
        error.to_string().contains("migrate the VM back to node pve1"),
        "{error}"
    );
    site.cluster.move_vm(number, "pve1");
    create(&host, &spec).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}
