//! Every way that bytes take, under the version that it is for.

use vmferry_provider::proxmox::Shared;
use vmferry_provider::{ImageFormat, TargetHost};
use vmferry_testkit::proxmox::{Proxmox, Version};
use vmferry_testkit::{Format, MIB, image};

use crate::site::{Site, Store, create, disk, owner, plan, undo, vm, volume, write};

#[tokio::test]
async fn an_upload_becomes_a_disk_and_nothing_is_left_of_it() {
    for version in [Version::V8_4, Version::V9] {
        let site = Site::new(version);
        let host = site.host().await;
        let disks = [volume(0, ImageFormat::Qcow2), volume(1, ImageFormat::Vmdk)];
        host.check_target(&plan(disks.to_vec()), &owner()).await.unwrap();
        let files = [site.image("a.qcow2", Format::Qcow2), site.folder.path().join("b.vmdk")];
        let raw = site.image("b.raw", Format::Raw);
        let arguments = ["convert", "-O", "vmdk", "-o", "subformat=streamOptimized"];
        vmferry_testkit::run(
            std::process::Command::new("qemu-img")
                .args(arguments)
                .arg(&raw)
                .arg(&files[1]),
        );
        let mut volumes = Vec::new();
        for (spec, file) in disks.iter().zip(&files) {
            let made = host.create_volume(spec, &owner()).await.unwrap();
            assert_eq!(host.create_volume(spec, &owner()).await.unwrap(), made);
            write(&host, &made.id, file).await.unwrap();
            // A second time, as after a crash.
            write(&host, &made.id, file).await.unwrap();
            volumes.push(made.id);
        }
        assert_eq!(site.cluster.volumes().len(), 2);
        let mut spec = vm(&volumes);
        spec.hardware.disks[1].capacity = 12 * MIB;
        let made = create(&host, &spec).await.unwrap();
        assert_eq!(create(&host, &spec).await.unwrap(), made);
        let id = made.id.0.parse().unwrap();
        let found = site.cluster.disks(id);
        assert_eq!(found.len(), 2, "{found:?}");
        image::assert_same(&files[0], Format::Qcow2, &found[0].path, found[0].format);
        image::assert_pattern(&found[1].path, found[1].format, MIB, 2 * MIB, b'b');
        assert!(
            site.cluster.volumes().iter().all(|volume| !volume.contains("import/")),
            "{:?}",
            site.cluster.volumes()
        );
        let config = site.cluster.vm(&made.name).unwrap().config;
        assert!(
            config["scsi1"].contains("size=12M") && config["scsi1"].contains("serial=serial-d1"),
            "{config:?}"
        );
        assert_eq!(config["boot"], "order=scsi0");
        assert!(config["net0"].contains("bridge=vmbr0,tag=5"), "{config:?}");
        undo(&host, 2).await;
        site.assert_empty();
    }
}

#[tokio::test]
async fn the_node_fetches_the_object_and_no_byte_of_it_passes_here() {
    let site = Site::new(Version::V8_4);
    let host = site.host().await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let store = Store::start(&file, "200 OK");
    let made = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    assert!(store.pull(&host, &made.id).await.unwrap());
    // What is there with the right checksum is not fetched again.
    assert!(store.pull(&host, &made.id).await.unwrap());
    assert_eq!(store.asked(), 1);
    let made = create(&host, &vm(&[made.id])).await.unwrap();
    let found = site.cluster.disks(made.id.0.parse().unwrap());
    image::assert_same(&file, Format::Qcow2, &found[0].path, found[0].format);
    assert!(site.cluster.received() < 64 << 10, "{}", site.cluster.received());
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn on_8_3_the_image_comes_in_an_archive() {
    let mut site = Site::new(Version::V8_3);
    site.config.storage = Some(Proxmox::THIN.to_owned());
    let host = site.host().await;
    let file = site.image("a.qcow2", Format::Qcow2);
    host.check_target(&plan(vec![volume(0, ImageFormat::Qcow2)]), &owner())
        .await
        .unwrap();
    let made = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    let store = Store::start(&file, "200 OK");
    assert!(!store.pull(&host, &made.id).await.unwrap());
    assert_eq!(store.asked(), 0);
    write(&host, &made.id, &file).await.unwrap();
    assert_eq!(site.cluster.volumes().len(), 1);
    assert!(site.cluster.volumes()[0].ends_with("-disk0.ova"));
    let made = create(&host, &vm(&[made.id])).await.unwrap();
    let found = site.cluster.disks(made.id.0.parse().unwrap());
    assert_eq!(found[0].format, Format::Raw);
    image::assert_same(&file, Format::Qcow2, &found[0].path, found[0].format);
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn a_shared_folder_is_written_to() {
    for version in [Version::V8_3, Version::V9] {
        let mut site = Site::new(version);
        site.config.shared = Some(Shared {
            storage: Proxmox::SHARED.to_owned(),
            path: site.cluster.shared_dir().to_owned(),
        });
        let host = site.host().await;
        let file = site.image("a.qcow2", Format::Qcow2);
        host.check_target(&plan(vec![volume(0, ImageFormat::Qcow2)]), &owner())
            .await
            .unwrap();
        let made = host
            .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
            .await
            .unwrap();
        // One that is dropped leaves nothing.
        let sink = host.open_sink(&made.id, &owner(), 10, None).await.unwrap();
        sink.write(0, vmferry_block::Buf::copy_of(b"12345")).await.unwrap();
        drop(sink);
        assert_eq!(
            vmferry_testkit::files_below(site.cluster.shared_dir()),
            Vec::<std::path::PathBuf>::new()
        );
        write(&host, &made.id, &file).await.unwrap();
        let received = site.cluster.received();
        assert!(received < 64 << 10, "{received}");
        let made = create(&host, &vm(&[made.id])).await.unwrap();
        let found = site.cluster.disks(made.id.0.parse().unwrap());
        image::assert_same(&file, Format::Qcow2, &found[0].path, found[0].format);
        undo(&host, 1).await;
        site.assert_empty();
    }
}

#[tokio::test]
async fn what_is_in_a_shared_folder_is_read_back() {
    let mut site = Site::new(Version::V9);
    site.config.shared = Some(Shared {
        storage: Proxmox::SHARED.to_owned(),
        path: site.cluster.shared_dir().to_owned(),
    });
    let mut spec = volume(0, ImageFormat::Qcow2);
    for (target, is_read) in [(Proxmox::SHARED, true), (Proxmox::LOCAL, false)] {
        spec.storage = Some(target.to_owned());
        for (format, kind) in [(ImageFormat::Qcow2, Format::Qcow2), (ImageFormat::Raw, Format::Raw)] {
            spec.format = format;
            let host = site.host().await;
            let made = host.create_volume(&spec, &owner()).await.unwrap();
            write(&host, &made.id, &site.image("a", kind)).await.unwrap();
            assert_eq!(host.reads_back(&made.id), is_read, "{:?}", made.id);
            let opened = host.open_volume(&made.id, format).await;
            if is_read {
                let disk = opened.unwrap();
                assert_eq!(disk.capacity(), 8 * MIB);
                let map = disk.map().await.unwrap();
                // A raw file that was written whole has no holes.
                let start = if kind == Format::Raw { 0 } else { MIB };
                assert!(map.extents().first().is_some_and(|part| part.start >= start), "{map:?}");
                let read = disk.read(MIB, vmferry_block::Buf::alone(4096)).await.unwrap();
                assert!(read.iter().any(|byte| *byte != 0));
                let read = disk.read(4 * MIB, vmferry_block::Buf::alone(4096)).await.unwrap();
                assert!(read.iter().all(|byte| *byte == 0));
                disk.finish().await.unwrap();
            } else {
                let error = opened.err().unwrap();
                assert_eq!(error.kind(), vmferry_provider::Kind::Unsupported);
                assert!(error.to_string().contains("--verify stream"), "{error}");
            }
            host.delete_volume(&spec, &owner()).await.unwrap();
        }
    }
    site.assert_empty();
}

#[tokio::test]
async fn a_vm_with_uefi_has_its_variables() {
    use vmferry_provider::Firmware;
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let file = site.image("a.qcow2", Format::Qcow2);
    let made = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    write(&host, &made.id, &file).await.unwrap();
    let mut spec = vm(&[made.id]);
    spec.hardware.firmware = Firmware::Uefi { secure_boot: true };
    spec.hardware.disks = vec![disk("d0", 8 * MIB)];
    create(&host, &spec).await.unwrap();
    let config = site.cluster.vm(&spec.name).unwrap().config;
    assert_eq!((config["bios"].as_str(), config["machine"].as_str()), ("ovmf", "q35"));
    assert!(
        config["efidisk0"].contains("efitype=4m") && config["efidisk0"].contains("pre-enrolled-keys=1"),
        "{config:?}"
    );
    undo(&host, 1).await;
    site.assert_empty();
}
