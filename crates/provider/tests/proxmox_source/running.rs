//! VMs that run while they are read.

use std::time::Duration;

use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::micro::Counters;
use vmferry_testkit::proxmox::Version;

use super::*;

const BOOT: Duration = Duration::from_mins(1);

async fn reads_one_instant(version: Version) {
    let cluster = cluster(version);
    cluster.seed(&two_disks(&cluster, 100, "live").set("agent", "1"));
    cluster.start_vm(100);
    cluster.console_line(100, "live", BOOT);
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "live");
    source.check_source(&vm).await.unwrap();
    assert!(source.frozen(&vm, &owner()).await.unwrap().is_none());
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    assert!(frozen.detail.contains("1 file system frozen"), "{}", frozen.detail);
    assert_eq!(
        source.freeze(&vm, &owner(), false).await.unwrap().id,
        frozen.id,
        "found again"
    );
    let seen = cluster.vm("live").unwrap();
    assert!(!seen.frozen, "the guest must not stand still: {:?}", seen.agent);
    assert!(
        seen.agent.iter().any(|command| command == "fsfreeze-freeze"),
        "{:?}",
        seen.agent
    );
    // The guest writes on, and what it overwrites is kept.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = copy(&*open(&source, &vm, &frozen.id, "scsi0").await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = copy(&*open(&source, &vm, &frozen.id, "scsi1").await).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    let again = copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    assert_same(first.path(), again.path(), Format::Raw);
    let counters = Counters::read(first.path(), Format::Raw);
    counters.assert_consistent_with(Counters::read_second_disk(second.path(), Format::Raw));
    source.release(&selector(100, "live"), &owner(), false).await.unwrap();
    source.release(&selector(100, "live"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
    let path = cluster.disks(100)[0].path.clone();
    cluster.stop_vm(100);
    assert!(Counters::read(&path, Format::Qcow2).a > counters.a, "the guest went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_disks_are_of_one_instant() {
    reads_one_instant(Version::V9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_disks_are_of_one_instant_with_the_older_command_line() {
    reads_one_instant(Version::V8_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_volume_is_read_while_its_guest_writes() {
    let cluster = cluster(Version::V8_4);
    let image = boot_image(cluster.dir(), "thin");
    let disk = SeedDisk::new("virtio0", image, Format::Raw).on(Cluster::THIN);
    cluster.seed(&SeedVm::new(100, "thin").disk(disk));
    cluster.start_vm(100);
    cluster.console_line(100, "thin", BOOT);
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "thin");
    let frozen = source.freeze(&vm, &owner(), true).await.unwrap();
    assert!(
        frozen.detail.contains("crash-consistent: the VM has no guest agent"),
        "{}",
        frozen.detail
    );
    let disk = open(&source, &vm, &frozen.id, "virtio0").await;
    let copied = copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    Counters::read(copied.path(), Format::Raw).assert_consistent();
    source.release(&selector(100, "thin"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_finds_and_ends_the_state() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "taken"));
    cluster.start_vm(100);
    cluster.console_line(100, "taken", BOOT);
    let before = cluster.inventory();
    let vm = vm(100, "taken");
    let frozen = connect(&cluster).await.freeze(&vm, &owner(), false).await.unwrap();
    let other = connect(&cluster).await;
    assert_eq!(other.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
    let stranger = Owner::new("ffffffff-0000-4000-8000-000000000000");
    assert!(other.frozen(&vm, &stranger).await.unwrap().is_none());
    other.release(&selector(100, "taken"), &stranger, false).await.unwrap();
    assert!(
        other.frozen(&vm, &owner()).await.unwrap().is_some(),
        "another owner's release touches nothing"
    );
    // There is one server in a VM, and it is taken.
    let refused = other.freeze(&vm, &stranger, false).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy, "{refused}");
    assert!(other.frozen(&vm, &owner()).await.unwrap().is_some());
    other.release(&selector(100, "taken"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_was_restarted_is_another_state() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "again"));
    cluster.start_vm(100);
    cluster.console_line(100, "again", BOOT);
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "again");
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    let disk = open(&source, &vm, &frozen.id, "scsi0").await;
    disk.read(0, Buf::alone(4096)).await.unwrap();
    cluster.stop_vm(100);
    assert_eq!(
        disk.read(0, Buf::alone(4096)).await.unwrap_err().kind(),
        Kind::FrozenStateGone
    );
    cluster.start_vm(100);
    assert_eq!(disk.finish().await.unwrap_err().kind(), Kind::FrozenStateGone);
    let refused = source.open_disk(&vm, &frozen.id, "scsi0").await;
    assert_eq!(refused.err().unwrap().kind(), Kind::FrozenStateGone);
    source.release(&selector(100, "again"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_holds_nothing_up() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "mute").set("agent", "1"));
    cluster.start_vm(100);
    cluster.console_line(100, "mute", BOOT);
    let before = cluster.inventory();
    cluster.agent_answers(100, false);
    let source = connect(&cluster).await;
    let frozen = source.freeze(&vm(100, "mute"), &owner(), false).await.unwrap();
    assert!(
        frozen
            .detail
            .contains("crash-consistent: the guest agent does not answer"),
        "{}",
        frozen.detail
    );
    source.release(&selector(100, "mute"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_stands_still_is_released_and_goes_on() {
    let cluster = cluster(Version::V9);
    cluster.seed(&two_disks(&cluster, 100, "paused"));
    cluster.start_vm(100);
    cluster.console_line(100, "paused", BOOT);
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let frozen = source.freeze(&vm(100, "paused"), &owner(), false).await.unwrap();
    // As when whoever froze it was killed while the guest was paused.
    cluster.monitor(100, "stop", &serde_json::json!({})).unwrap();
    let mark = cluster.dir().join(format!("nodes/pve1/run/{}.cont", frozen.id.0));
    std::fs::write(mark, "").unwrap();
    source.release(&selector(100, "paused"), &owner(), false).await.unwrap();
    let status = cluster.monitor(100, "query-status", &serde_json::json!({})).unwrap();
    assert_eq!(status["status"], "running", "{status}");
    assert_eq!(filters(&cluster), [""; 0]);
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_its_user_paused_is_released_and_stays_paused() {
    let cluster = cluster(Version::V8_4);
    cluster.seed(&two_disks(&cluster, 100, "still"));
    cluster.start_vm(100);
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    source.freeze(&vm(100, "still"), &owner(), false).await.unwrap();
    cluster.monitor(100, "stop", &serde_json::json!({})).unwrap();
    source.release(&selector(100, "still"), &owner(), false).await.unwrap();
    let status = cluster.monitor(100, "query-status", &serde_json::json!({})).unwrap();
    assert_eq!(status["status"], "paused", "{status}");
    assert_eq!(filters(&cluster), [""; 0]);
    assert_nothing_left(&cluster, &before);
}

/// What vmferry has made in VM 100, and not taken out.
fn filters(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.monitor(100, "query-named-block-nodes", &serde_json::json!({"flat": true}));
    let nodes = nodes.unwrap();
    let names = nodes.as_array().unwrap().iter().map(|node| node["node-name"].as_str());
    let ours = names
        .flatten()
        .filter(|name| ["vf-", "va-", "vc-"].iter().any(|part| name.starts_with(part)));
    ours.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vm_left_on_the_node_that_it_came_from_is_freed() {
    let mut cluster = cluster(Version::V9);
    let image = boot_image(cluster.dir(), "left");
    let disk = SeedDisk::new("scsi0", image, Format::Raw).on(Cluster::PLAIN);
    cluster.seed(&SeedVm::new(100, "left").disk(disk));
    cluster.start_vm(100);
    let source = connect(&cluster).await;
    source.freeze(&vm(100, "left"), &owner(), false).await.unwrap();
    // A storage of the first node; the VM moves with its disk, and what it does not know of stays.
    cluster.storage_nodes(Cluster::PLAIN, &["pve1"]);
    cluster.move_vm(100, "pve2");
    let left = || {
        cluster
            .volumes()
            .iter()
            .filter(|volume| volume.contains("vmferry"))
            .count()
    };
    assert_eq!(left(), 1);
    source.release(&selector(100, "left"), &owner(), false).await.unwrap();
    assert_eq!(left(), 0);
    // It is there or not: nobody knows while the node is down.
    cluster.node_down("pve1");
    let error = source
        .release(&selector(100, "left"), &owner(), false)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("pve1"), "{error}");
    cluster.node_up("pve1");
    source.release(&selector(100, "left"), &owner(), false).await.unwrap();
    assert_eq!(cluster.violations(), [""; 0]);
}
