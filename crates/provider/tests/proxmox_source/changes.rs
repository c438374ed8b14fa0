//! The filters of a running VM, and who else is at its disks.

use std::time::Duration;

use serde_json::{Value, json};
use vmferry_provider::{Kind, SourceHost as _};
use vmferry_testkit::micro::Counters;
use vmferry_testkit::proxmox::Version;

use super::*;

const BOOT: Duration = Duration::from_mins(1);

/// A cluster with a VM that runs.
fn running(version: Version, name: &str) -> Cluster {
    let cluster = cluster(version);
    cluster.seed(&two_disks(&cluster, 100, name));
    cluster.start_vm(100);
    cluster.console_line(100, name, BOOT);
    cluster
}

/// What a drive has at its top.
fn top(cluster: &Cluster, disk: &str) -> String {
    let drives = cluster.monitor(100, "query-block", &json!({})).unwrap();
    let is_it = |drive: &&Value| drive["qdev"] == disk;
    let drive = drives.as_array().unwrap().iter().find(is_it).unwrap();
    drive["inserted"]["node-name"].as_str().unwrap().to_owned()
}

/// From now on, images are made on a file system that they just fit in.
const NO_ROOM: &str = r#"PATH=${PATH#*:}
[ "$1" = create ] || exec qemu-img "$@"
small=$(mktemp -d /run/small.XXXXXX)
mount -t tmpfs -o size=SIZEk tmpfs "$small"
: >"$small/image"
mount --bind "$small/image" "$6"
exec qemu-img "$@"
"#;

async fn breaks(version: Version) {
    let cluster = running(version, "full");
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    let vm = vm(100, "full");
    let script = NO_ROOM.replace("SIZE", "264");
    cluster.replace_command("pve1", "qemu-img", Some(&script));
    let frozen = source.freeze(&vm, &owner(), false).await.unwrap();
    // The guest overwrites something, and there is no room for what was there.
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    let error = loop {
        let read = async {
            let disk = source.open_disk(&vm, &frozen.id, "scsi0").await?.into_random().unwrap();
            copy(&*disk).await?;
            disk.finish().await
        };
        match read.await {
            Ok(()) => assert!(std::time::Instant::now() < limit, "it is not full"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert!(error.to_string().contains("was full"), "{error}");
    let again = source.open_disk(&vm, &frozen.id, "scsi1").await;
    assert_eq!(again.err().unwrap().kind(), Kind::FrozenStateGone);
    assert!(source.frozen(&vm, &owner()).await.unwrap().is_none());
    // Its guest did not notice.
    let status = cluster.monitor(100, "query-status", &json!({})).unwrap();
    assert_eq!(status["status"], "running", "{status}");
    cluster.replace_command("pve1", "qemu-img", None);
    let next = source.freeze(&vm, &owner(), false).await.unwrap();
    assert_ne!(next.id, frozen.id);
    let disk = open(&source, &vm, &next.id, "scsi0").await;
    let copied = copy(&*disk).await.unwrap();
    disk.finish().await.unwrap();
    drop(disk);
    let counters = Counters::read(copied.path(), Format::Raw);
    counters.assert_consistent();
    tokio::time::sleep(Duration::from_millis(500)).await;
    source.release(&selector(100, "full"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
    let path = cluster.disks(100)[0].path.clone();
    cluster.stop_vm(100);
    let after = Counters::read(&path, Format::Qcow2);
    assert!(after.a > counters.a && after.boots == 1, "{after:?} after {counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_for_changes_breaks_the_state_and_never_the_guest() {
    breaks(Version::V9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_for_changes_breaks_the_state_with_the_older_command_line() {
    breaks(Version::V7_4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_keeps_its_size_while_it_is_frozen() {
    for (version, drive) in [
        (Version::V9, json!({"node-name": "drive-scsi0"})),
        (Version::V8_2, json!({"device": "drive-scsi0"})),
    ] {
        let cluster = running(version, "size");
        let before = cluster.inventory();
        let source = connect(&cluster).await;
        source.freeze(&vm(100, "size"), &owner(), false).await.unwrap();
        let mut grow = drive.clone();
        grow["size"] = json!(32 * MIB);
        cluster.monitor(100, "block_resize", &grow).unwrap_err();
        source.release(&selector(100, "size"), &owner(), false).await.unwrap();
        cluster.monitor(100, "block_resize", &grow).unwrap();
        assert_nothing_left(&cluster, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_below_stays_in_its_place() {
    let cluster = running(Version::V9, "below");
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    source.freeze(&vm(100, "below"), &owner(), false).await.unwrap();
    assert!(top(&cluster, "scsi0").starts_with("vf-"));
    let target = json!({"driver": "null-co", "node-name": "null", "size": 16 * MIB});
    cluster.monitor(100, "blockdev-add", &target).unwrap();
    let backup = json!({"job-id": "other", "device": "drive-scsi0", "target": "null", "sync": "none",
                        "filter-node-name": "others"});
    cluster.monitor(100, "blockdev-backup", &backup).unwrap();
    source.release(&selector(100, "below"), &owner(), false).await.unwrap();
    assert_eq!(top(&cluster, "scsi0"), "others");
    assert_eq!(top(&cluster, "scsi1"), "drive-scsi1");
    let cancel = json!({"device": "other", "force": true});
    cluster.monitor(100, "block-job-cancel", &cancel).unwrap();
    let is_out = || (top(&cluster, "scsi0") == "drive-scsi0").then_some(());
    assert!(vmferry_testkit::poll(Duration::from_secs(10), is_out).is_some());
    assert_nothing_left(&cluster, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_above_is_waited_for() {
    let cluster = running(Version::V8_4, "above");
    let before = cluster.inventory();
    let source = connect(&cluster).await;
    source.freeze(&vm(100, "above"), &owner(), false).await.unwrap();
    let target = json!({"driver": "null-co", "node-name": "null", "size": 16 * MIB});
    cluster.monitor(100, "blockdev-add", &target).unwrap();
    let backup = json!({"job-id": "other", "device": "drive-scsi0", "target": "null", "sync": "none"});
    cluster.monitor(100, "blockdev-backup", &backup).unwrap();
    let error = source
        .release(&selector(100, "above"), &owner(), false)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains("backup"), "{error}");
    let cancel = json!({"device": "other", "force": true});
    cluster.monitor(100, "block-job-cancel", &cancel).unwrap();
    source.release(&selector(100, "above"), &owner(), false).await.unwrap();
    assert_nothing_left(&cluster, &before);
}
