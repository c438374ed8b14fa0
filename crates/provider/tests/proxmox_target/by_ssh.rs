//! Disks by ssh and `qm importdisk`, before 8.3 and where no storage takes imports.

use std::path::PathBuf;
use std::time::Duration;

use vmferry_block::Buf;
use vmferry_provider::{Creation, ImageFormat, Kind, TargetHost, VolumeId, proxmox};
use vmferry_testkit::proxmox::{Options, Proxmox, Version};
use vmferry_testkit::{Format, MIB, image};

use crate::site::{Site, Store, create, owner, plan, undo, vm, volume, write, write_as};
use crate::vms::leave_volume;

fn site(version: Version) -> Site {
    Site::with(&Options::new(version).with_ssh())
}

async fn made(host: &proxmox::Proxmox) -> VolumeId {
    let made = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    assert!(made.id.0.starts_with("node@pve1/"), "{}", made.id.0);
    made.id
}

/// A site with a volume that is written.
async fn staged(version: Version) -> (Site, proxmox::Proxmox, VolumeId, PathBuf) {
    let site = site(version);
    let host = site.host().await;
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    write(&host, &id, &file).await.unwrap();
    (site, host, id, file)
}

#[track_caller]
fn assert_disk(site: &Site, id: &str, file: &std::path::Path) {
    let found = site.cluster.disks(id.parse().unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    image::assert_same(file, Format::Qcow2, &found[0].path, found[0].format);
    let vm = site.cluster.vm(crate::site::NAME).unwrap();
    assert!(
        !vm.config.keys().any(|key| key.starts_with("unused")),
        "{:?}",
        vm.config
    );
    assert_eq!(site.cluster.volumes().len(), 1, "{:?}", site.cluster.volumes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_streamed_to_the_node_and_imported_there() {
    for (version, storage) in [
        (Version::V7_4, Proxmox::LOCAL),
        (Version::V8_2, Proxmox::THIN),
        (Version::V8_2, Proxmox::SHARED),
    ] {
        let mut site = site(version);
        site.config.storage = Some(storage.to_owned());
        let host = site.host().await;
        let disks = [volume(0, ImageFormat::Qcow2), volume(1, ImageFormat::Raw)];
        host.check_target(&plan(disks.to_vec()), &owner()).await.unwrap();
        let files = [site.image("a.qcow2", Format::Qcow2), site.image("b.raw", Format::Raw)];
        let mut volumes = Vec::new();
        for (spec, file) in disks.iter().zip(&files) {
            let made = host.create_volume(spec, &owner()).await.unwrap();
            let folder = if storage == Proxmox::THIN { "-" } else { storage };
            assert!(
                made.id.0.starts_with(&format!("node@pve1/{storage}/{folder}/vmferry-")),
                "{}",
                made.id.0
            );
            let store = Store::start(file, "200 OK");
            assert!(!store.pull(&host, &made.id).await.unwrap());
            write(&host, &made.id, file).await.unwrap();
            // A second time, as after a crash.
            write(&host, &made.id, file).await.unwrap();
            volumes.push(made.id);
        }
        let mut spec = vm(&volumes);
        spec.hardware.disks[1].capacity = 12 * MIB;
        let made = create(&host, &spec).await.unwrap();
        assert_eq!(create(&site.host().await, &spec).await.unwrap(), made);
        let found = site.cluster.disks(made.id.0.parse().unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
        image::assert_same(&files[0], Format::Qcow2, &found[0].path, found[0].format);
        image::assert_pattern(&found[1].path, found[1].format, MIB, 2 * MIB, b'b');
        let config = site.cluster.vm(&made.name).unwrap().config;
        assert!(
            config["scsi1"].contains("size=12M") && config["scsi1"].contains("serial=serial-d1"),
            "{config:?}"
        );
        assert_eq!(config["boot"], "order=scsi0");
        assert!(!config.keys().any(|key| key.starts_with("unused")), "{config:?}");
        // The files went when the VM was whole.
        site.assert_only_vms();
        assert_eq!(site.cluster.volumes().len(), 2);
        undo(&host, 2).await;
        site.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_storage_takes_imports_disks_come_by_ssh_too() {
    let mut site = site(Version::V9);
    site.config.storage = Some(Proxmox::PLAIN.to_owned());
    site.config.import_storage = Some(Proxmox::PLAIN.to_owned());
    let host = site.host().await;
    host.check_target(&plan(vec![volume(0, ImageFormat::Qcow2)]), &owner())
        .await
        .unwrap();
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    write(&host, &id, &file).await.unwrap();
    let made = create(&host, &vm(&[id])).await.unwrap();
    assert_disk(&site, &made.id.0, &file);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_or_is_dropped_leaves_nothing() {
    let mut site = site(Version::V8_2);
    let host = site.host().await;
    let id = made(&host).await;
    let sink = host.open_sink(&id, &owner(), 8 * MIB, None).await.unwrap();
    sink.write(0, Buf::copy_of(&[1; 10_000])).await.unwrap();
    assert_eq!(
        sink.write(5, Buf::copy_of(&[1; 10])).await.unwrap_err().kind(),
        Kind::Bug
    );
    drop(sink);
    site.assert_empty();
    let sink = host.open_sink(&id, &owner(), 8 * MIB, None).await.unwrap();
    sink.write(0, Buf::copy_of(&[1; 10_000])).await.unwrap();
    site.cluster.break_ssh("pve1");
    let mut at = 10_000;
    let error = loop {
        match sink.write(at, Buf::copy_of(&[1; 10_000])).await {
            Ok(()) => at += 10_000,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    drop(sink);
    // The node was cut off so that it could not tidy up: whoever comes next does.
    let file = site.image("a.qcow2", Format::Qcow2);
    write(&host, &id, &file).await.unwrap();
    let made = create(&host, &vm(&[id])).await.unwrap();
    assert_disk(&site, &made.id.0, &file);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_ends_is_ended_by_the_next() {
    let site = site(Version::V7_4);
    let (first, second) = (site.host().await, site.host().await);
    let id = made(&first).await;
    let sink = first.open_sink(&id, &owner(), 8 * MIB, None).await.unwrap();
    sink.write(0, Buf::copy_of(&[1; 10_000])).await.unwrap();
    write(&second, &id, &site.image("a.qcow2", Format::Qcow2))
        .await
        .unwrap();
    sink.finish(8 * MIB).await.unwrap_err();
    let again = second.open_sink(&id, &owner(), 8 * MIB, None).await.unwrap();
    // And by whoever undoes.
    undo(&first, 1).await;
    site.assert_empty();
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_as_something_else_is_refused_by_the_node() {
    let site = site(Version::V8_2);
    let host = site.host().await;
    let id = made(&host).await;
    let bytes = std::fs::read(site.image("a.qcow2", Format::Qcow2)).unwrap();
    let other = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let error = write_as(&host, &id, &bytes, other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("checksum mismatch"), "{error}");
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_node_is_told() {
    let site = site(Version::V8_2);
    let host = site.host().await;
    let id = made(&host).await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let df = "echo x; echo /dev/x 100 99 1048576 99% /";
    site.cluster.replace_command("pve1", "df", Some(df));
    let error = host
        .check_target(&plan(vec![volume(0, ImageFormat::Qcow2)]), &owner())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    site.cluster.replace_command("pve1", "df", None);
    // Full while it comes.
    let dd = "head -c 200000 >/dev/null; echo \"dd: error writing: No space left on device\" >&2; exit 1";
    site.cluster.replace_command("pve1", "dd", Some(dd));
    let error = write(&host, &id, &file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    site.cluster.replace_command("pve1", "dd", None);
    site.assert_empty();
    write(&host, &id, &file).await.unwrap();
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shows_another_key_gets_nothing() {
    let mut site = site(Version::V8_2);
    let host = site.host().await;
    let id = made(&host).await;
    site.cluster.change_host_keys();
    let fresh = site.host().await;
    let checked = fresh
        .check_target(&plan(vec![volume(0, ImageFormat::Qcow2)]), &owner())
        .await;
    assert_eq!(checked.unwrap_err().kind(), Kind::Untrusted);
    let error = write(&fresh, &id, &site.image("a.qcow2", Format::Qcow2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_on_the_node_is_told_once_and_tried_again() {
    let (site, host, id, file) = staged(Version::V8_2).await;
    let why = "copy failed: No space left on device";
    site.cluster.fail_task("importdisk", Duration::from_millis(300), why);
    let spec = vm(&[id]);
    let error = create(&host, &spec).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(error.to_string().contains(why), "{error}");
    // Another process.
    let made = create(&site.host().await, &spec).await.unwrap();
    assert_disk(&site, &made.id.0, &file);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_without_us_and_is_found_again() {
    let (site, host, id, file) = staged(Version::V7_4).await;
    site.cluster.slow_tasks("importdisk", Duration::from_secs(6));
    let spec = vm(&[id]);
    assert!(matches!(
        host.create_vm(&spec, &owner()).await.unwrap(),
        Creation::UnderWay(_)
    ));
    drop(host);
    let host = site.host().await;
    let made = create(&host, &spec).await.unwrap();
    assert_disk(&site, &made.id.0, &file);
    assert_eq!(site.cluster.calls_of("SSH", "qm importdisk").len(), 1);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_cut_off_is_begun_again_and_leaves_no_volume() {
    let (mut site, host, id, file) = staged(Version::V8_2).await;
    site.cluster.slow_tasks("importdisk", Duration::from_mins(10));
    let spec = vm(&[id]);
    assert!(matches!(
        host.create_vm(&spec, &owner()).await.unwrap(),
        Creation::UnderWay(_)
    ));
    // Its processes die.
    site.cluster.break_ssh("pve1");
    site.cluster.slow_tasks("importdisk", Duration::ZERO);
    assert_eq!(site.cluster.volumes().len(), 1, "the volume that nobody knows");
    let made = create(&site.host().await, &spec).await.unwrap();
    assert_disk(&site, &made.id.0, &file);
    undo(&site.host().await, 1).await;
    site.assert_empty();
}

/// What was there before cannot be told when the first import begins: nothing may be taken for new later.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_an_earlier_vm_stay_when_they_cannot_be_listed_at_first() {
    const LIST_FAILS: &str = r#"
        [ "$1" != list ] || { echo "storage is not online" >&2; exit 255; }
        mkdir -p /run/real
        ln -sf "$(command -v qm)" /run/real/pvesm
        exec /run/real/pvesm "$@""#;
    let site = site(Version::V8_2);
    let mut before = leave_volume(&site, Proxmox::LOCAL);
    before.sort();
    let host = site.host().await;
    let id = made(&host).await;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let spec = vm(&[id]);
    site.cluster.replace_command("pve1", "pvesm", Some(LIST_FAILS));
    site.cluster
        .fail_task("importdisk", Duration::from_millis(300), "copy failed");
    let error = create(&host, &spec).await.unwrap_err();
    assert!(error.to_string().contains("storage is not online"), "{error}");
    site.cluster.replace_command("pve1", "pvesm", None);
    create(&host, &spec).await.unwrap_err();
    create(&host, &spec).await.unwrap();
    undo(&host, 1).await;
    let mut after = site.cluster.volumes();
    after.sort();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_under_way_is_undone() {
    let (site, host, id, _) = staged(Version::V8_2).await;
    site.cluster.slow_tasks("importdisk", Duration::from_mins(10));
    let under_way = host.create_vm(&vm(&[id]), &owner()).await.unwrap();
    assert!(matches!(under_way, Creation::UnderWay(_)));
    undo(&site.host().await, 1).await;
    site.assert_empty();
}
