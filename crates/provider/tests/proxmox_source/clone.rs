//! Without ssh: a clone on a storage that both sides have.

use std::time::Duration;

use vmferry_provider::proxmox::Shared;
use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::micro::Counters;
use vmferry_testkit::proxmox::Version;

use super::*;

fn without_ssh(cluster: &Cluster) -> Config {
    let mut config = config(cluster);
    config.credentials.ssh_private_key = None;
    config.shared = Some(Shared {
        storage: Cluster::SHARED.to_owned(),
        path: cluster.shared_dir().to_owned(),
    });
    config
}

/// A cluster without ssh.
fn plain_cluster(real_machines: bool) -> Cluster {
    Cluster::start(&Options {
        real_machines,
        ..Options::new(Version::V8_4)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_vm_is_cloned_and_the_clone_is_deleted() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "cloned"));
    let before = cluster.inventory();
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let vm = vm(100, "cloned");
    source.check_source(&vm).await.unwrap();
    assert!(source.frozen(&vm, &owner()).await.unwrap().is_none());
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    assert_eq!(source.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
    assert_eq!(source.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
    let stranger = Owner::new("ffffffff-0000-4000-8000-000000000000");
    source
        .release(&selector(100, "cloned"), &stranger, false)
        .await
        .unwrap();
    for original in &cluster.disks(100) {
        let disk = open(&source, &vm, &frozen.id, &original.key).await;
        let copied = copy(&*disk).await.unwrap();
        assert_same(copied.path(), &original.path, original.format);
        disk.finish().await.unwrap();
    }
    source.release(&selector(100, "cloned"), &owner(), false).await.unwrap();
    source.release(&selector(100, "cloned"), &owner(), false).await.unwrap();
    assert_eq!(
        source.open_disk(&vm, &frozen.id, "scsi0").await.err().unwrap().kind(),
        Kind::FrozenStateGone
    );
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_is_cloned_from_a_snapshot() {
    let cluster = plain_cluster(true);
    let image = boot_image(cluster.dir(), "snap");
    let disk = SeedDisk::new("scsi0", image, Format::Raw).stored_as(Format::Qcow2);
    cluster.seed(&SeedVm::new(100, "snap").disk(disk));
    cluster.start_vm(100);
    cluster.console_line(100, "snap", Duration::from_mins(1));
    let before = cluster.inventory();
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let vm = vm(100, "snap");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    let copied = copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    Counters::read(copied.path(), Format::Raw).assert_consistent();
    drop(disk);
    source.release(&selector(100, "snap"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_snapshot_is_refused_while_it_runs() {
    let cluster = plain_cluster(true);
    cluster.seed(&two_disks(&cluster, 100, "raw"));
    cluster.start_vm(100);
    let before = cluster.inventory();
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let error = source.freeze(&vm(100, "raw"), &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("stop the VM"), "{error}");
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_fails_leaves_nothing() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "fails"));
    let before = cluster.inventory();
    cluster.fail_task(
        "qmclone",
        Duration::from_millis(200),
        "clone failed: No space left on device",
    );
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let error = source.freeze(&vm(100, "fails"), &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    source.release(&selector(100, "fails"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_is_named() {
    for privilege in ["VM.Clone", "Datastore.AllocateSpace"] {
        let cluster = Cluster::start(&Options::new(Version::V9).without(privilege));
        cluster.seed(&two_disks(&cluster, 100, "denied"));
        let before = cluster.inventory();
        let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
        let error = source.freeze(&vm(100, "denied"), &owner(), false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.to_string().contains(privilege), "{error}");
        assert_nothing_left(&cluster, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_the_id_of_a_clone_before_stays() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "first"));
    let stranger = format!("{}:101/vm-101-disk-9.raw", Cluster::SHARED);
    cluster.leave_volume(&stranger);
    let before = cluster.inventory();
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let frozen = source.freeze(&vm(100, "first"), &owner(), false).await.unwrap();
    assert!(frozen.id.0.starts_with("clone-101-"), "{frozen:?}");
    source.release(&selector(100, "first"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_whose_maker_was_killed_at_its_first_disk_is_deleted_all_the_same() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "killed"));
    let before = cluster.inventory();
    cluster.slow_tasks("qmclone", Duration::from_secs(3));
    kill_while_it_clones(&cluster).await;
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    // Nothing says yet whose it is.
    let error = source
        .release(&selector(100, "killed"), &owner(), false)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    cluster.settle();
    source.release(&selector(100, "killed"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_whose_maker_was_killed_at_its_first_disk_is_taken_over() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "killed"));
    let before = cluster.inventory();
    cluster.slow_tasks("qmclone", Duration::from_secs(3));
    kill_while_it_clones(&cluster).await;
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    let vm = vm(100, "killed");
    assert!(source.frozen(&vm, &owner()).await.unwrap().is_none());
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    assert_eq!(cluster.vms().len(), 2, "{:#?}", cluster.vms());
    open(&source, &vm, &frozen.id, "scsi0").await.finish().await.unwrap();
    source.release(&selector(100, "killed"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

/// Begins a freeze, and drops it as soon as the cluster is at it.
async fn kill_while_it_clones(cluster: &Cluster) {
    let first = Proxmox::connect(without_ssh(cluster)).await.unwrap();
    let freezing = tokio::spawn(async move { first.freeze(&vm(100, "killed"), &owner(), false).await });
    vmferry_testkit::wait_for("the clone to be made", Duration::from_secs(20), || {
        (cluster.vms().len() == 2).then_some(())
    });
    freezing.abort();
    assert!(freezing.await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_clone_of_an_owner_is_deleted() {
    let cluster = plain_cluster(false);
    cluster.seed(&two_disks(&cluster, 100, "twice"));
    let before = cluster.inventory();
    let source = Proxmox::connect(without_ssh(&cluster)).await.unwrap();
    source.freeze(&vm(100, "twice"), &owner(), false).await.unwrap();
    let made = cluster.vms().into_iter().find(|vm| vm.id != 100).unwrap();
    cluster.seed(&SeedVm::new(102, &made.name).set("description", &made.config["description"]));
    source.release(&selector(100, "twice"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}
