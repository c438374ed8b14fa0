//! Disks as streams.

use futures::future::try_join_all;
use vmferry_block::Buf;
use vmferry_testkit::vsphere::{Options, Vsphere};

use super::{Images, assert_clean, assert_holds, connect, drain, esx, named, open, owner, seed};
use crate::{Hypervisor, SourceHost};

#[tokio::test]
async fn disks_are_read_at_once_under_one_lease() {
    let plain = Vsphere::with(&Options {
        star: false,
        ..Options::default()
    });
    for (server, running) in [(plain, false), (Vsphere::start(), true), (esx(), false), (esx(), true)] {
        let images = Images::new();
        let disks = [
            images.disk("a.raw", 8, 1),
            images.disk("b.raw", 24, 4),
            images.disk("c.raw", 8, 7),
        ];
        let vm = seed(
            "web",
            &[(&disks[0], "pvscsi"), (&disks[1], "pvscsi"), (&disks[2], "sata")],
        );
        server.seed(&if running { vm.running() } else { vm });
        let vsphere = connect(&server).await;
        let vm = vsphere.find_vm(&named("web")).await.unwrap();
        let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap().id;
        let export = if running { "ExportSnapshot" } else { "ExportVm" };

        // Looking at the sizes takes hold of nothing.
        for (disk, mib) in [("scsi0:0", 8), ("scsi0:1", 24), ("sata0:0", 8)] {
            assert_eq!(open(&vsphere, &vm, &frozen, disk).await.capacity(), mib << 20);
        }
        assert_eq!(server.count(export), 0);

        // Another process does the work.
        let worker = connect(&server).await;
        let read = ["scsi0:0", "scsi0:1", "sata0:0"].map(|disk| {
            let (worker, vm, frozen) = (worker.clone(), vm.clone(), frozen.clone());
            async move {
                let mut stream = open(&worker, &vm, &frozen, disk).await;
                let bytes = drain(&mut *stream).await?;
                stream.finish().await.map(|()| bytes)
            }
        });
        let read = try_join_all(read).await.unwrap();
        for (bytes, disk) in read.iter().zip(&disks) {
            assert_holds(&images, bytes, disk);
        }
        assert_eq!(server.count(export), 1);
        assert_eq!(server.count("HttpNfcLeaseComplete"), 1);
        assert_eq!(server.count("HttpNfcLeaseAbort"), 0);
        assert!(server.count("HttpNfcLeaseGetManifest") >= 3);
        // The lease is gone: another one can be had, for one disk.
        let mut again = open(&worker, &vm, &frozen, "scsi0:1").await;
        let bytes = drain(&mut *again).await.unwrap();
        again.finish().await.unwrap();
        assert_holds(&images, &bytes, &disks[1]);
        vsphere.release(&named("web"), &owner(), false).await.unwrap();
        assert_clean(&server);
    }
}

#[tokio::test]
async fn what_the_guest_writes_after_the_snapshot_is_not_read() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap().id;
    let content = server.state().vm("web").unwrap().disks[0].content.clone();
    vmferry_testkit::image::write_pattern(&content, vmferry_testkit::Format::Raw, 0, 65536, 99);
    let mut stream = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    let bytes = drain(&mut *stream).await.unwrap();
    stream.finish().await.unwrap();
    assert_holds(&images, &bytes, &disk);
}

#[tokio::test]
async fn a_reader_that_is_dropped_gives_the_lease_back() {
    let server = Vsphere::start();
    let images = Images::new();
    let disks = [images.disk("a.raw", 64, 1), images.disk("b.raw", 8, 4)];
    server.seed(&seed("web", &[(&disks[0], "pvscsi"), (&disks[1], "pvscsi")]));
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap().id;
    let mut first = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    let mut second = open(&vsphere, &vm, &frozen, "scsi0:1").await;
    first.read(Buf::alone(1000)).await.unwrap();
    let bytes = drain(&mut *second).await.unwrap();
    drop(first);
    // The other one is none the worse for it.
    second.finish().await.unwrap();
    assert_holds(&images, &bytes, &disks[1]);
    assert_eq!(
        (server.count("HttpNfcLeaseComplete"), server.count("HttpNfcLeaseAbort")),
        (0, 1)
    );
    assert_clean(&server);

    // Alone, it is called off in the background; whoever comes next waits for that.
    let mut first = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    first.read(Buf::alone(1000)).await.unwrap();
    drop(first);
    let mut again = open(&vsphere, &vm, &frozen, "scsi0:0").await;
    let bytes = drain(&mut *again).await.unwrap();
    again.finish().await.unwrap();
    assert_holds(&images, &bytes, &disks[0]);
    assert_clean(&server);
}
