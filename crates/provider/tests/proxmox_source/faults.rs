//! Nodes, connections and storages that fail while a disk is read.

use std::time::Duration;

use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::proxmox::{Rule, Version};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_and_comes_back() {
    let mut cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "node"));
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "node");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    cluster.node_down("pve1");
    let error = disk.read(MIB, Buf::alone(4096)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::Unreachable);
    drop(disk);
    cluster.node_up("pve1");
    // The same state, from where it was.
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    drop(disk);
    source.release(&selector(100, "node"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_leaves_no_server_behind() {
    let mut cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "cut"));
    cluster.start_vm(100);
    cluster.console_line(100, "cut", Duration::from_mins(1));
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "cut");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    cluster.break_ssh("pve1");
    let error = disk.read(0, Buf::alone(4096)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    drop(disk);
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    source.release(&selector(100, "cut"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_takes_its_server_along() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "dies"));
    let before = cluster.inventory();
    let vm = vm(100, "dies");
    let source = connect(&cluster).await;
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    assert!(cluster.inventory().iter().any(|line| line.contains("qemu-nbd")));
    // As when the process ends: no release.
    drop((disk, source));
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_saw_end_is_ended_at_the_release() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "left"));
    let before = cluster.inventory();
    let vm = vm(100, "left");
    let reader = connect(&cluster).await;
    let frozen = reader.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&reader, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    let stranger = Owner::new("ffffffff-0000-4000-8000-000000000000");
    let other = connect(&cluster).await;
    other.release(&selector(100, "left"), &stranger, false).await.unwrap();
    disk.read(0, Buf::alone(4096)).await.unwrap();
    other.release(&selector(100, "left"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_migrates_while_it_is_read() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "moves"));
    cluster.start_vm(100);
    cluster.console_line(100, "moves", Duration::from_mins(1));
    let source = connect(&cluster).await;
    let vm = vm(100, "moves");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    cluster.move_vm(100, "pve2");
    let error = disk.read(0, Buf::alone(4096)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::FrozenStateGone);
    drop(disk);
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    drop(disk);
    source.release(&selector(100, "moves"), &owner(), false).await.unwrap();
    // A watchdog that was called off looks once a second.
    vmferry_testkit::wait_for("nothing of ours to be left", Duration::from_secs(10), || {
        let left = cluster.inventory();
        (!left.iter().any(|line| line.contains("vmferry"))).then_some(())
    });
    assert_eq!(cluster.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_is_thawed_when_freezing_goes_wrong() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "thaw").set("agent", "1"));
    cluster.start_vm(100);
    cluster.console_line(100, "thaw", Duration::from_mins(1));
    let before = cluster.inventory();
    // The thaw fails three times; it is asked on.
    cluster.on("POST", "fsfreeze-thaw", 2, &Rule::Answer(500, "got timeout".to_owned()));
    let source = connect(&cluster).await;
    source.freeze(&vm(100, "thaw"), &owner(), false).await.unwrap();
    let thawed = vmferry_testkit::poll(Duration::from_secs(15), || {
        (!cluster.vm("thaw").unwrap().frozen).then_some(())
    });
    assert!(thawed.is_some(), "the guest stands still");
    source.release(&selector(100, "thaw"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_left_frozen_is_thawed_at_the_release() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "left").set("agent", "1"));
    cluster.start_vm(100);
    cluster.console_line(100, "left", Duration::from_mins(1));
    let before = cluster.inventory();
    // Whoever froze it cannot thaw it any more, as when its process was killed.
    cluster.on(
        "POST",
        "fsfreeze-thaw",
        100,
        &Rule::Answer(500, "got timeout".to_owned()),
    );
    let first = connect(&cluster).await;
    let frozen = first.freeze(&vm(100, "left"), &owner(), false).await;
    assert!(frozen.is_ok() && cluster.vm("left").unwrap().frozen, "{frozen:?}");
    let second = connect(&cluster).await;
    second.release(&selector(100, "left"), &owner(), false).await.unwrap();
    assert!(!cluster.vm("left").unwrap().frozen, "the guest stands still");
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_locked_meanwhile_is_read_and_released() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "locked"));
    cluster.start_vm(100);
    cluster.console_line(100, "locked", Duration::from_mins(1));
    let source = connect(&cluster).await;
    let vm = vm(100, "locked");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    cluster.lock_vm(100, Some("backup"));
    let before = cluster.vm("locked").unwrap().lock;
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    source.release(&selector(100, "locked"), &owner(), false).await.unwrap();
    assert_eq!(cluster.vm("locked").unwrap().lock, before);
    let error = source.delete_source(&selector(100, "locked")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    cluster.lock_vm(100, None);
    source.delete_source(&selector(100, "locked")).await.unwrap();
    assert_nothing_left(&cluster, &[]);
}
