//! Disks come in as they were sent.

use vmferry_provider::{ImageFormat, Intake, Kind, TargetHost};
use vmferry_testkit::MIB;
use vmferry_testkit::vsphere::Vsphere;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_arrives_whole_and_can_be_read_back() {
    for options in every_kind() {
        let server = Vsphere::with(&options);
        let host = connect(&server).await;
        assert_eq!(host.intake(), Intake::Object(&[ImageFormat::Vmdk]));
        let staged = Staged::new(96 * MIB, 7);
        let id = import(&host, 0, &staged).await.unwrap();
        assert_eq!(id.0, "LocalDS_0/vmferry-0f8fad5bd9cb-0");
        let state = server.state();
        let carrier = state.vm("vmferry-0f8fad5bd9cb-0").unwrap();
        assert_eq!(carrier.extra_config["vmferry.uid"], UID);
        assert_eq!(
            (carrier.disks.len(), carrier.disks[0].bytes, carrier.disks[0].thin),
            (1, 96 * MIB, true)
        );
        assert_content(&server, &carrier.name, 0, &staged.image());
        assert!(state.leases.is_empty());
        assert_eq!(server.count("HttpNfcLeaseSetManifestChecksumType"), 1);

        let source = host.open_volume(&id, ImageFormat::Vmdk).await.unwrap();
        assert_eq!(source.capacity(), 96 * MIB);
        let raw = std::fs::read(staged.raw()).unwrap();
        for (at, len) in [(0, 4096), (9 * MIB + 5, 65_536), (96 * MIB - 512, 512)] {
            let buf = source.read(at, Buf::alone(len)).await.unwrap();
            let at = usize::try_from(at).unwrap();
            assert!(buf[..] == raw[at..at + len], "{at}");
        }
        // A worker that was killed before it could say so does it again.
        import(&host, 0, &staged).await.unwrap();
        assert_content(&server, "vmferry-0f8fad5bd9cb-0", 0, &staged.image());
        host.delete_volume(&volume(0), &owner()).await.unwrap();
        host.delete_volume(&volume(0), &owner()).await.unwrap();
        assert_nothing(&server.state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_come_in_side_by_side_and_one_that_fails_fails_alone() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = [
        Staged::new(64 * MIB, 1),
        Staged::new(32 * MIB, 2),
        Staged::new(40 * MIB, 3),
    ];
    let [a, b, c] = [0, 1, 2].map(|index| import(&host, index, &staged[index as usize]));
    let (a, b, c) = tokio::join!(a, b, c);
    for (index, imported) in [a, b, c].into_iter().enumerate() {
        imported.unwrap();
        assert_content(
            &server,
            &format!("vmferry-0f8fad5bd9cb-{index}"),
            0,
            &staged[index].image(),
        );
    }
    server.cut_next_transfer(MIB);
    import(&host, 1, &staged[1]).await.unwrap_err();
    let state = server.state();
    assert_eq!((state.vms.len(), state.leases.len()), (2, 0));
    for index in 0..3 {
        host.delete_volume(&volume(index), &owner()).await.unwrap();
    }
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_dropped_leaves_nothing() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(64 * MIB, 1);
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    assert_nothing(&server.state());
    for end in [0, 100, 600, staged.object.len() / 2, staged.object.len()] {
        let sink = open(&host, &id, &staged).await.unwrap();
        write(&*sink, &staged.object, end).await.unwrap();
        drop(sink);
        // The next one does not have to wait for the last.
        let sink = open(&host, &id, &staged).await.unwrap();
        drop(sink);
        await_nothing(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_disk_or_comes_in_disorder_is_refused() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    let qcow2 = std::fs::read(Staged::new(32 * MIB, 1).image()).unwrap();
    let sink = host.open_sink(&id, &owner(), qcow2.len() as u64, None).await.unwrap();
    let error = sink.write(0, Buf::copy_of(&qcow2[..4096])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let sink = host.open_sink(&id, &owner(), 100, None).await.unwrap();
    sink.write(0, Buf::copy_of(&[0; 100])).await.unwrap();
    assert_eq!(sink.finish(100).await.unwrap_err().kind(), Kind::Invalid);
    let sink = host.open_sink(&id, &owner(), 8192, None).await.unwrap();
    for (at, len) in [(512, 512), (0, 8193)] {
        let error = sink.write(at, Buf::copy_of(&vec![0; len])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Bug, "{error}");
    }
    assert_eq!(sink.finish(8192).await.unwrap_err().kind(), Kind::Bug);
    let format = VolumeSpec {
        format: ImageFormat::Qcow2,
        ..volume(0)
    };
    assert_eq!(
        host.create_volume(&format, &owner()).await.unwrap_err().kind(),
        Kind::Unsupported
    );
    assert_nothing(&server.state());

    // A stream whose tail is missing is no disk for the host either.
    let mut staged = Staged::new(32 * MIB, 1);
    staged.object.truncate(staged.object.len() - 1024);
    let error = import(&host, 0, &staged).await.unwrap_err();
    assert!(error.to_string().contains("end-of-stream"), "{error}");
    await_nothing(&server);
}
