//! VMs that are stopped.

use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::Format;
use vmferry_testkit::proxmox::{Proxmox as Cluster, SeedDisk, SeedVm, Version};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn reads_qcow2_raw_and_thin_volumes() {
    let cluster = cluster(Version::V8_4);
    let image = boot_image(cluster.dir(), "thin");
    cluster.seed(
        &two_disks(&cluster, 100, "stopped").disk(SeedDisk::new("virtio0", image, Format::Raw).on(Cluster::THIN)),
    );
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "stopped");
    source.check_source(&vm).await.unwrap();
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    assert!(frozen.id.0.starts_with("offline-"), "{frozen:?}");
    assert_eq!(source.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
    // Looking at it takes hold of nothing.
    let disks: Vec<_> = cluster.disks(100);
    assert_eq!(disks.len(), 3);
    for disk in &disks {
        let opened = open(&source, &vm, &frozen.id, &disk.key).await;
        assert_eq!(opened.capacity(), 16 * MIB);
    }
    assert_nothing_left(&cluster, &before);
    for disk in &disks {
        let opened = open(&source, &vm, &frozen.id, &disk.key).await;
        let copied = copy(&*opened).await.unwrap();
        assert_same(copied.path(), &disk.path, disk.format);
        assert!(
            opened.map().await.unwrap().data_bytes() < 8 * MIB,
            "{}: holes are told",
            disk.key
        );
        opened.finish().await.unwrap();
    }
    source
        .release(&selector(100, "stopped"), &owner(), false)
        .await
        .unwrap();
    source
        .release(&selector(100, "stopped"), &owner(), false)
        .await
        .unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_was_started_meanwhile_is_another_state() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "started"));
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "started");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    copy(&*disk).await.unwrap();
    // Being read must not keep it from starting.
    cluster.start_vm(100);
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::FrozenStateGone);
    let again = source.open_disk(&vm, &frozen.id, "scsi0").await;
    assert_eq!(again.err().unwrap().kind(), Kind::FrozenStateGone);
    // Until it has written, it is what it was. How long that takes depends on what else the machine does.
    let path = cluster.disks(100)[0].path.clone();
    let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let unwritten = written();
    vmferry_testkit::wait_for("the guest to write", std::time::Duration::from_mins(1), || {
        (written() != unwritten).then_some(())
    });
    cluster.stop_vm(100);
    let again = source.open_disk(&vm, &frozen.id, "scsi0").await;
    assert_eq!(
        again.err().unwrap().kind(),
        Kind::FrozenStateGone,
        "its disks were written"
    );
    assert_ne!(source.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
    drop(disk);
    source
        .release(&selector(100, "started"), &owner(), false)
        .await
        .unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_another_user_started_and_stopped_is_another_state() {
    let cluster = Cluster::start(&Options::new(Version::V8_4).with_ssh().without("Sys.Audit"));
    let image = boot_image(cluster.dir(), "root");
    cluster.seed(&SeedVm::new(100, "root").disk(SeedDisk::new("scsi0", image, Format::Raw).on(Cluster::THIN)));
    let before = cluster.inventory();
    let mut config = config(&cluster);
    config.ssh.host = Some(cluster.ssh_host("pve1"));
    let source = Proxmox::connect(config).await.unwrap();
    let vm = vm(100, "root");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.finish().await.unwrap();
    // Nothing of the volume shows it, as with a block device.
    cluster.start_vm(100);
    cluster.stop_vm(100);
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::FrozenStateGone);
    drop(disk);
    assert_ne!(source.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
    source.release(&selector(100, "root"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_moved_is_another_state() {
    let cluster = cluster(Version::V8_3);
    cluster.seed(&two_disks(&cluster, 100, "moved"));
    let source = connect(&cluster).await;
    let vm = vm(100, "moved");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi1").await;
    cluster.move_vm(100, "pve2");
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::FrozenStateGone);
    drop(disk);
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi1").await;
    let copied = copy(&*disk).await.unwrap();
    let original = &cluster.disks(100)[1];
    assert_same(copied.path(), &original.path, original.format);
    disk.finish().await.unwrap();
    assert_eq!(cluster.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_a_vm_with_its_volumes_and_no_other() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&SeedVm::new(101, "other").disk(SeedDisk::new("scsi0", boot_image(cluster.dir(), "o"), Format::Raw)));
    let before = cluster.inventory();
    cluster.seed(&two_disks(&cluster, 100, "done"));
    cluster.start_vm(100);
    let source = connect(&cluster).await;
    source.delete_source(&selector(100, "done")).await.unwrap();
    source.delete_source(&selector(100, "done")).await.unwrap();
    source.release(&selector(100, "done"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_has_the_id_of_a_deleted_one_stays() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "done"));
    let source = connect(&cluster).await;
    source.delete_source(&selector(100, "done")).await.unwrap();
    // The process dies before it writes that down, and another VM gets the id.
    cluster.seed(&two_disks(&cluster, 100, "another").on("pve2"));
    cluster.start_vm(100);
    let before = cluster.inventory();
    let error = source.delete_source(&selector(100, "done")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert!(error.to_string().contains("qm destroy 100"), "{error}");
    assert_eq!(cluster.vm("another").unwrap().status, "running");
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_end_nobody_saw_is_waited_for() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "slow"));
    cluster.slow_tasks("qmdestroy", std::time::Duration::from_secs(2));
    let first = connect(&cluster).await;
    let deleting = tokio::spawn(async move { first.delete_source(&selector(100, "slow")).await });
    let deletions = || cluster.tasks().iter().filter(|task| task.kind == "qmdestroy").count();
    vmferry_testkit::wait_for("the deletion", std::time::Duration::from_secs(20), || {
        (deletions() == 1).then_some(())
    });
    deleting.abort();
    let second = connect(&cluster).await;
    second.delete_source(&selector(100, "slow")).await.unwrap();
    assert_eq!(deletions(), 1);
    assert_nothing_left(&cluster, &[]);
}
