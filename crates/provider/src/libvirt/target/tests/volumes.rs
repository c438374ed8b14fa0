//! Volumes: made once, filled through either sink, read back, deleted once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmferry_block::Buf;
use vmferry_testkit::{Format, Host, MIB, World, image};

use super::{connect, owner, session, stranger, volume_spec, write};
use crate::libvirt::Libvirt;
use crate::libvirt::target::name::Place;
use crate::libvirt::target::{sink, volume};
use crate::{DiskSink, ImageFormat, Kind, Owner, TargetHost, Volume, VolumeId};

/// How the bytes go to the volume.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As the adapter chooses.
    Chosen,
    /// Through libvirt, although the file is one of this machine.
    Stream,
}

async fn open(libvirt: &Libvirt, way: Way, id: &VolumeId, len: u64) -> Arc<dyn DiskSink> {
    match way {
        Way::Chosen => libvirt.open_sink(id, &owner(), len, None).await.unwrap(),
        Way::Stream => {
            let place = Place::owned(id, &owner()).unwrap();
            let held = volume::describe(libvirt, &place).await.unwrap().file_bytes;
            sink::stream(libvirt, place, held, len).await.unwrap()
        }
    }
}

fn kit(format: ImageFormat) -> Format {
    match format {
        ImageFormat::Raw => Format::Raw,
        _ => Format::Qcow2,
    }
}

/// An image with `len` bytes of `value` at each of `offsets`.
fn image_of(path: &Path, format: ImageFormat, size: u64, offsets: &[u64], len: u64, value: u8) {
    image::create(path, kit(format), size);
    for offset in offsets {
        image::write_pattern(path, kit(format), *offset, len, value);
    }
}

fn path_of(host: &Host, volume: &Volume) -> PathBuf {
    host.pool_dir().join(volume.id.0.split_once('/').unwrap().1)
}

/// Fills a volume twice, and asserts that it is the second image and nothing of the first.
async fn fill(host: &Host, libvirt: &Libvirt, way: Way, format: ImageFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    // Dense and large, then sparse and small: what the second leaves out must not be the first's.
    image_of(&first, format, 24 * MIB, &[0], 24 * MIB, 0x5a);
    image_of(
        &second,
        format,
        16 * MIB,
        &[0, 5 * MIB, 11 * MIB + 512],
        256 << 10,
        0xc3,
    );

    let spec = volume_spec("web <&'\"> 1", 0, format, 16 * MIB);
    let made = libvirt.create_volume(&spec, &owner()).await.unwrap();
    let path = path_of(host, &made);
    let before = file_access(&path);
    for source in [&first, &second] {
        let len = source.metadata().unwrap().len();
        let sink = open(libvirt, way, &made.id, len).await;
        assert_eq!(sink.concurrency() == 1, matches!(way, Way::Stream), "{way:?}");
        write(&*sink, source).await.unwrap();
        sink.finish(len).await.unwrap();
    }
    assert_eq!(path.metadata().unwrap().len(), second.metadata().unwrap().len());
    image::assert_same(&second, kit(format), &path, kit(format));
    if format == ImageFormat::Qcow2 {
        image::assert_sound(&path);
    }
    assert_eq!(file_access(&path), before, "owner or permissions changed");

    let name = made.id.0.split_once('/').unwrap().1;
    let xml = host.virsh(["vol-dumpxml", "--pool", "default", name]);
    assert!(xml.contains(&format!("<format type='{format}'/>")), "{xml}");
    assert!(
        xml.contains(&format!("<capacity unit='bytes'>{}</capacity>", 16 * MIB)),
        "{xml}"
    );

    read_back(libvirt, &made, &second).await;
    libvirt.delete_volume(&spec, &owner()).await.unwrap();
    assert!(!path.exists());
}

fn file_access(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let seen = path.metadata().unwrap();
    (seen.uid(), seen.gid(), seen.mode())
}

/// Reads the volume back and compares it with what it was made of.
async fn read_back(libvirt: &Libvirt, made: &Volume, source: &Path) {
    let disk = libvirt.open_volume(&made.id, made.format).await.unwrap();
    assert_eq!(disk.capacity(), 16 * MIB);
    let map = disk.map().await.unwrap();
    assert!(map.data_bytes() >= 3 * (256 << 10));
    let plain = tempfile::tempdir().unwrap();
    let raw = plain.path().join("raw");
    image::convert(source, kit(made.format), &raw, Format::Raw);
    let expected = std::fs::read(&raw).unwrap();
    let mut content = vec![0; expected.len()];
    for extent in map.extents() {
        let read = disk.read(extent.start, Buf::alone(extent.len as usize)).await.unwrap();
        content[extent.start as usize..extent.end() as usize].copy_from_slice(&read);
    }
    assert!(content == expected, "the content that is read back differs");
    disk.finish().await.unwrap();
}

#[tokio::test]
async fn content_arrives_in_the_file_itself() {
    let (host, connected) = session().await;
    let world = World::of(&[&host], &[]);
    for format in [ImageFormat::Qcow2, ImageFormat::Raw] {
        fill(&host, &connected.libvirt, Way::Chosen, format).await;
    }
    world.assert_unchanged(&[&host], &[]);
}

#[tokio::test]
async fn a_file_is_gone_on_with_only_as_it_was_left() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let spec = volume_spec("again", 0, ImageFormat::Raw, 16 * MIB);
    let made = libvirt.create_volume(&spec, &owner()).await.unwrap();
    let reopen = async |kept| libvirt.reopen_sink(&made.id, &owner(), 16 * MIB, kept).await.unwrap();
    // It was never opened: nothing of it was written.
    assert!(reopen(4 * MIB).await.is_none());

    let sink = libvirt.open_sink(&made.id, &owner(), 16 * MIB, None).await.unwrap();
    let half = |byte| Buf::copy_of(&vec![byte; 8 << 20]);
    sink.write(0, half(1)).await.unwrap();
    sink.write(8 * MIB, half(2)).await.unwrap();
    assert!(sink.flush().await.unwrap());
    drop(sink);
    let sink = reopen(8 * MIB).await.unwrap();
    sink.write(12 * MIB, Buf::copy_of(&[3; 4096])).await.unwrap();
    sink.finish(16 * MIB).await.unwrap();
    let mut expected = vec![1; 8 << 20];
    expected.resize(16 << 20, 0);
    expected[12 << 20..][..4096].fill(3);
    assert!(std::fs::read(path_of(&host, &made)).unwrap() == expected);

    // Cut short, it is left as it is.
    let file = std::fs::File::options()
        .write(true)
        .open(path_of(&host, &made))
        .unwrap();
    file.set_len(10 << 20).unwrap();
    assert!(reopen(8 * MIB).await.is_none());
    assert_eq!(path_of(&host, &made).metadata().unwrap().len(), 10 << 20);
    let theirs = Owner::new("another");
    assert!(libvirt.reopen_sink(&made.id, &theirs, 16 * MIB, MIB).await.is_err());
    libvirt.delete_volume(&spec, &owner()).await.unwrap();
}

#[tokio::test]
async fn content_arrives_through_a_stream() {
    let (host, connected) = session().await;
    let world = World::of(&[&host], &[]);
    for format in [ImageFormat::Qcow2, ImageFormat::Raw] {
        fill(&host, &connected.libvirt, Way::Stream, format).await;
    }
    world.assert_unchanged(&[&host], &[]);
}

#[tokio::test]
async fn a_host_over_the_network_gets_a_stream() {
    let host = Host::system("target");
    let connected = connect(host.tcp_uri()).await;
    let spec = volume_spec("net", 0, ImageFormat::Raw, 4 * MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    image_of(&source, ImageFormat::Raw, 16 * MIB, &[MIB, 5 * MIB], MIB, 7);
    let sink = connected
        .libvirt
        .open_sink(&made.id, &owner(), 16 * MIB, None)
        .await
        .unwrap();
    assert_eq!(sink.concurrency(), 1);
    write(&*sink, &source).await.unwrap();
    sink.finish(16 * MIB).await.unwrap();
    image::assert_same(&source, Format::Raw, &path_of(&host, &made), Format::Raw);
    read_back(&connected.libvirt, &made, &source).await;
    connected.libvirt.delete_volume(&spec, &owner()).await.unwrap();
}

#[tokio::test]
async fn disks_arrive_side_by_side_through_one_connection() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    image_of(&source, ImageFormat::Raw, 48 * MIB, &[0, 30 * MIB], 14 * MIB, 0x11);
    let one = async |index| {
        let spec = volume_spec("pair", index, ImageFormat::Raw, 48 * MIB);
        let made = libvirt.create_volume(&spec, &owner()).await.unwrap();
        let sink = open(libvirt, Way::Stream, &made.id, 48 * MIB).await;
        write(&*sink, &source).await.unwrap();
        sink.finish(48 * MIB).await.unwrap();
        image::assert_same(&source, Format::Raw, &path_of(&host, &made), Format::Raw);
    };
    tokio::join!(one(0), one(1), one(2));
}

#[tokio::test]
async fn making_and_deleting_twice_is_doing_it_once() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    // Another's volume whose name only begins as ours does.
    host.virsh(["vol-create-as", "default", "web-disk0.qcow2", "1M"]);
    let world = World::of(&[&host], &[]);
    let spec = volume_spec("web", 0, ImageFormat::Qcow2, MIB);
    let first = libvirt.create_volume(&spec, &owner()).await.unwrap();
    assert_eq!(libvirt.create_volume(&spec, &owner()).await.unwrap(), first);
    let other = libvirt.create_volume(&spec, &stranger()).await.unwrap();
    assert_ne!(other, first);
    assert_eq!(first.id.0, "default/web-disk0-5f0c9d2e77aa.qcow2");

    libvirt.delete_volume(&spec, &owner()).await.unwrap();
    libvirt.delete_volume(&spec, &owner()).await.unwrap();
    assert!(path_of(&host, &other).exists(), "the stranger's volume went, too");
    libvirt.delete_volume(&spec, &stranger()).await.unwrap();
    world.assert_unchanged(&[&host], &[]);

    let mut nowhere = spec.clone();
    nowhere.storage = Some("nowhere".to_owned());
    libvirt.delete_volume(&nowhere, &owner()).await.unwrap();
    let error = libvirt.create_volume(&nowhere, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_file_that_libvirt_forgot_is_found_and_deleted() {
    let (host, connected) = session().await;
    let world = World::of(&[&host], &[]);
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let path = host.pool_dir().join("web-disk0-5f0c9d2e77aa.raw");
    std::fs::write(&path, "left over").unwrap();
    host.give(&path);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    assert_eq!(path_of(&host, &made), path);
    connected.libvirt.delete_volume(&spec, &owner()).await.unwrap();
    world.assert_unchanged(&[&host], &[]);

    std::fs::write(&path, "left over").unwrap();
    connected.libvirt.delete_volume(&spec, &owner()).await.unwrap();
    assert!(!path.exists());

    // In a pool that is not active, nobody knows.
    host.virsh(["pool-destroy", "default"]);
    let error = connected.libvirt.delete_volume(&spec, &owner()).await.unwrap_err();
    assert!(error.to_string().contains("virsh pool-start default"), "{error}");
}

#[tokio::test]
async fn another_ones_volume_is_never_opened_for_writing() {
    let (host, connected) = session().await;
    host.virsh(["vol-create-as", "default", "web.raw", "1M"]);
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    let open = async |id: &str, owner: &Owner| {
        let opened = connected
            .libvirt
            .open_sink(&VolumeId(id.to_owned()), owner, 512, None)
            .await;
        opened.map(|_| ()).unwrap_err().kind()
    };
    assert_eq!(open("default/web.raw", &owner()).await, Kind::NameTaken);
    assert_eq!(open(&made.id.0, &stranger()).await, Kind::NameTaken);
    assert_eq!(
        open("default/web-disk9-5f0c9d2e77aa.raw", &owner()).await,
        Kind::NotFound
    );
    assert_eq!(open("default", &owner()).await, Kind::Invalid);
}

#[tokio::test]
async fn a_sink_refuses_what_would_break_the_volume() {
    let (host, connected) = session().await;
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    for way in [Way::Chosen, Way::Stream] {
        let sink = open(&connected.libvirt, way, &made.id, 8192).await;
        // libvirt 11.3's daemon would crash at this.
        let kind = sink.write(4096, Buf::copy_of(&[1; 4097])).await.unwrap_err().kind();
        assert_eq!(kind, Kind::Bug, "{way:?}");
        assert_eq!(sink.finish(8193).await.unwrap_err().kind(), Kind::Bug, "{way:?}");
        sink.write(0, Buf::copy_of(&[1; 4096])).await.unwrap();
        sink.finish(8192).await.unwrap();
        assert_eq!(path_of(&host, &made).metadata().unwrap().len(), 8192);
    }
    let sink = open(&connected.libvirt, Way::Stream, &made.id, 8192).await;
    sink.write(4096, Buf::copy_of(&[1; 4096])).await.unwrap();
    assert_eq!(
        sink.write(0, Buf::copy_of(&[1; 4096])).await.unwrap_err().kind(),
        Kind::Bug
    );
    assert!(
        sink.finish(8192).await.is_err(),
        "a sink that missed a write was finished"
    );
}

#[tokio::test]
async fn a_sink_that_is_dropped_leaves_the_volume_free() {
    let (host, connected) = session().await;
    let world = World::of(&[&host], &[]);
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    for _ in 0..3 {
        let sink = open(&connected.libvirt, Way::Stream, &made.id, 8 * MIB).await;
        sink.write(MIB, Buf::copy_of(&vec![9; 1 << 20])).await.unwrap();
        drop(sink);
        // The abort is under way on the sink's thread: the volume is in use until it is done.
        let free = vmferry_testkit::poll(std::time::Duration::from_secs(5), || {
            host.try_virsh(["vol-delete", "--pool", "default", "web-disk0-5f0c9d2e77aa.raw"])
                .ok()
        });
        assert!(free.is_some(), "the volume is still in use");
        connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    }
    connected.libvirt.delete_volume(&spec, &owner()).await.unwrap();
    world.assert_unchanged(&[&host], &[]);
}

#[tokio::test]
async fn a_host_that_dies_is_an_error_in_time() {
    let (mut host, connected) = session().await;
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    let sink = open(&connected.libvirt, Way::Stream, &made.id, 64 * MIB).await;
    sink.write(0, Buf::copy_of(&vec![9; 1 << 20])).await.unwrap();
    host.kill();
    let failed = overrun(&*sink).await;
    assert_eq!(failed.class(), vmferry_fault::Class::Retryable, "{failed}");
}

#[tokio::test]
async fn a_host_that_stands_still_is_unreachable() {
    let (host, connected) = session().await;
    let spec = volume_spec("web", 0, ImageFormat::Raw, MIB);
    let made = connected.libvirt.create_volume(&spec, &owner()).await.unwrap();
    let sink = open(&connected.libvirt, Way::Stream, &made.id, 64 * MIB).await;
    sink.write(0, Buf::copy_of(&vec![9; 1 << 20])).await.unwrap();
    let daemons = host.pids("libvirtd --timeout");
    assert!(!daemons.is_empty());
    for pid in &daemons {
        vmferry_testkit::run(std::process::Command::new("kill").args(["-STOP", &pid.to_string()]));
    }
    let failed = overrun(&*sink).await;
    assert_eq!(failed.kind(), Kind::Unreachable, "{failed}");
}

/// Writes on until it fails.
async fn overrun(sink: &dyn DiskSink) -> crate::Error {
    for step in 1..64 {
        if let Err(error) = sink.write(step * MIB, Buf::copy_of(&vec![9; 1 << 20])).await {
            return error;
        }
    }
    sink.finish(64 * MIB).await.unwrap_err()
}
