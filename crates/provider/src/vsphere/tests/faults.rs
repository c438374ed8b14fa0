//! What goes wrong while disks are read.

use std::time::Duration;

use vmferry_block::Buf;
use vmferry_testkit::vsphere::{Fault, Options, Vsphere};

use super::{Images, assert_clean, assert_holds, connect, drain, named, open, owner, seed};
use crate::vsphere::VSphere;
use crate::vsphere::soap::{Arg, Moref};
use crate::{DiskStream, Error, FrozenId, Hypervisor, Kind, SourceHost, Vm};

/// A server with a VM that is frozen.
struct Scene {
    server: Vsphere,
    images: Images,
    vsphere: VSphere,
    vm: Vm,
    frozen: FrozenId,
}

impl Scene {
    async fn new(running: bool, mib: u64) -> Self {
        Self::with(&Options::default(), running, mib).await
    }

    async fn with(options: &Options, running: bool, mib: u64) -> Self {
        let server = Vsphere::with(options);
        let images = Images::new();
        let disk = images.disk("a.raw", mib, 1);
        // What does not pack fills the buffers between the host and us.
        fill(&disk, mib);
        let vm = seed("web", &[(&disk, "pvscsi")]);
        server.seed(&if running { vm.running() } else { vm });
        let vsphere = connect(&server).await;
        let vm = vsphere.find_vm(&named("web")).await.unwrap();
        let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap().id;
        Self {
            server,
            images,
            vsphere,
            vm,
            frozen,
        }
    }

    async fn read(&self) -> Result<Vec<u8>, Error> {
        let mut stream = open(&self.vsphere, &self.vm, &self.frozen, "scsi0:0").await;
        let bytes = drain(&mut *stream).await?;
        stream.finish().await?;
        Ok(bytes)
    }

    /// It works now, and leaves nothing.
    async fn assert_works(&self) {
        let bytes = self.read().await.unwrap();
        assert_holds(&self.images, &bytes, &self.images.file("a.raw"));
        self.vsphere.release(&named("web"), &owner(), false).await.unwrap();
        assert_clean(&self.server);
    }
}

/// How a stream breaks off, on its way or at its end.
async fn breaks(mut stream: Box<dyn DiskStream>) -> Error {
    match drain(&mut *stream).await {
        Err(error) => error,
        Ok(_) => stream.finish().await.unwrap_err(),
    }
}

fn fill(disk: &std::path::Path, mib: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    let mut noise = vec![0; 1 << 20];
    for at in 3..mib {
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        file.write_all_at(&noise, at << 20).unwrap();
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_is_noticed() {
    let scene = Scene::new(true, 16).await;
    scene.server.cut_next_transfer(3 << 20);
    let error = scene.read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    scene.assert_works().await;
}

#[tokio::test]
async fn bytes_that_are_not_those_that_were_sent_are_noticed() {
    let scene = Scene::new(false, 8).await;
    scene.server.spoil_checksums(1);
    let error = scene.read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    scene.assert_works().await;
}

#[tokio::test]
async fn a_disk_that_is_not_in_the_manifest_is_read_all_the_same() {
    let scene = Scene::new(false, 8).await;
    scene.server.omit_from_manifest(1);
    scene.assert_works().await;
}

#[tokio::test]
async fn an_older_server_has_sha1_in_its_manifest() {
    let scene = Scene::new(false, 8).await;
    scene
        .server
        .inject(&Fault::of("HttpNfcLeaseSetManifestChecksumType", "NotSupported"));
    scene.server.spoil_checksums(1);
    let error = scene.read().await.unwrap_err();
    assert!(error.to_string().contains("SHA-1"), "{error}");
    scene
        .server
        .inject(&Fault::of("HttpNfcLeaseSetManifestChecksumType", "NotSupported"));
    scene.assert_works().await;
}

#[tokio::test]
async fn a_host_that_no_longer_knows_the_lease_costs_the_copy_and_no_more() {
    let scene = Scene::new(false, 8).await;
    for status in [401, 403, 404] {
        scene.server.refuse_next_transfer(status);
        let error = scene.read().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Failed, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    scene.assert_works().await;
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_named() {
    let scene = Scene::new(false, 8).await;
    scene.server.name_lease_host("127.0.0.1:1");
    let error = scene.read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("host 127.0.0.1"), "{error}");
    scene.server.clear();
    scene.assert_works().await;
}

#[tokio::test]
async fn a_session_that_is_ended_in_mid_copy_costs_the_copy_and_no_more() {
    let options = Options {
        lease_timeout: Duration::from_secs(2),
        ..Options::default()
    };
    let scene = Scene::with(&options, true, 64).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    stream.read(Buf::alone(1000)).await.unwrap();
    scene.server.kill_sessions();
    // The sign of life tells.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = breaks(stream).await;
    assert!(matches!(error.kind(), Kind::Failed | Kind::Unreachable), "{error}");
    scene.assert_works().await;
}

#[tokio::test]
async fn a_session_that_is_ended_at_the_end_costs_the_copy_and_not_the_frozen_state() {
    let scene = Scene::new(true, 8).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    drain(&mut *stream).await.unwrap();
    scene.server.kill_sessions();
    let error = stream.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    scene.assert_works().await;
}

#[tokio::test]
async fn signs_of_life_keep_a_lease_that_nobody_reads_from() {
    let options = Options {
        lease_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    let scene = Scene::with(&options, false, 32).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    let head = stream.read(Buf::alone(1000)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let rest = drain(&mut *stream).await.unwrap();
    stream.finish().await.unwrap();
    let bytes = [&head[..], &rest[..]].concat();
    assert_holds(&scene.images, &bytes, &scene.images.file("a.raw"));
}

#[tokio::test]
async fn a_lease_that_is_lost_ends_the_reading() {
    let options = Options {
        lease_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    let scene = Scene::with(&options, false, 64).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    stream.read(Buf::alone(1000)).await.unwrap();
    scene
        .server
        .inject(&Fault::of("HttpNfcLeaseProgress", "Timedout").times(3));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let error = breaks(stream).await;
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("lease"), "{error}");
    scene.server.clear();
    scene.assert_works().await;
}

#[tokio::test]
async fn a_lease_that_times_out_ends_the_reading() {
    let scene = Scene::new(false, 64).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    stream.read(Buf::alone(1000)).await.unwrap();
    scene.server.set_lease_timeout(Duration::ZERO);
    // The next sign of life is due after ten seconds, and finds the lease timed out.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let error = breaks(stream).await;
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("timed out"), "{error}");
    scene.server.set_lease_timeout(Duration::from_mins(5));
    scene.assert_works().await;
}

#[tokio::test]
async fn a_restart_of_the_server_costs_the_copy_and_no_more() {
    let options = Options {
        lease_timeout: Duration::from_secs(2),
        ..Options::default()
    };
    let scene = Scene::with(&options, true, 64).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    stream.read(Buf::alone(1000)).await.unwrap();
    scene.server.restart(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let error = breaks(stream).await;
    assert!(matches!(error.kind(), Kind::Failed | Kind::Unreachable), "{error}");
    scene.assert_works().await;
}

#[tokio::test]
async fn a_vm_that_is_moved_to_another_host_is_read_all_the_same() {
    let options = Options {
        cluster_hosts: 2,
        ..Options::default()
    };
    for running in [true, false] {
        let scene = Scene::with(&options, running, 8).await;
        let client = &scene.vsphere.client;
        let host_of = || scene.server.state().vm("web").unwrap().host.clone();
        let (vm, before) = (Moref::vm(&scene.vm.id.0), host_of());
        let hosts = client
            .properties_below(&client.content().root, "HostSystem", &["name"])
            .await;
        let hosts = hosts.unwrap();
        let other = hosts
            .iter()
            .find(|host| host.props.text("name") != Some(&before))
            .unwrap();
        let spec = [Arg::object("spec", [Arg::moref("host", &other.moref)])];
        let limit = Duration::from_secs(20);
        client.task(&vm, "RelocateVM_Task", &spec, limit).await.unwrap();
        assert_ne!(host_of(), before);
        let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
        stream.read(Buf::alone(1000)).await.unwrap();
        // While it is read, nothing moves it.
        let trouble = client.task(&vm, "RelocateVM_Task", &spec, limit).await.unwrap_err();
        assert_eq!(trouble.kind, Kind::Busy, "{trouble:?}");
        drop(stream);
        scene.assert_works().await;
    }
}

#[tokio::test]
async fn the_lease_of_a_process_that_was_killed_is_waited_for() {
    let options = Options {
        lease_timeout: Duration::from_secs(8),
        ..Options::default()
    };
    let scene = Scene::with(&options, true, 16).await;
    let subject = Moref::new("VirtualMachineSnapshot", &scene.frozen.0);
    let dead = connect(&scene.server).await;
    // Nobody gives a sign of life of it.
    dead.client.export_snapshot(&subject).await.unwrap();
    assert_eq!(scene.server.state().leases.len(), 1);
    scene.assert_works().await;
    assert!(scene.server.count("ExportSnapshot") > 3);
}

#[tokio::test]
async fn a_snapshot_that_somebody_removed_is_gone() {
    let scene = Scene::new(true, 8).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    scene.vsphere.release(&named("web"), &owner(), false).await.unwrap();
    let error = stream.read(Buf::alone(1000)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    let error = scene
        .vsphere
        .open_disk(&scene.vm, &scene.frozen, "scsi0:0")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
}

#[tokio::test]
async fn a_vm_that_was_started_before_the_first_read_is_another_state() {
    let scene = Scene::new(false, 8).await;
    let mut stream = open(&scene.vsphere, &scene.vm, &scene.frozen, "scsi0:0").await;
    let info = scene.vsphere.look_up(&named("web")).await.unwrap();
    scene.vsphere.client.power_on(&info.moref).await.unwrap();
    let error = stream.read(Buf::alone(1000)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
}

#[tokio::test]
async fn permission_licence_and_other_operations_are_told_apart() {
    let scene = Scene::new(true, 8).await;
    for (fault, kind) in [("NoPermission", Kind::Denied), ("RestrictedVersion", Kind::Unsupported)] {
        scene.server.inject(&Fault::of("ExportSnapshot", fault));
        let error = scene.read().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // Another operation that ends soon is waited for.
    scene
        .server
        .inject(&Fault::of("ExportSnapshot", "TaskInProgress").times(2));
    scene.assert_works().await;
}

#[tokio::test]
async fn a_disk_that_is_not_in_the_frozen_state_is_no_disk() {
    let scene = Scene::new(false, 8).await;
    let error = scene
        .vsphere
        .open_disk(&scene.vm, &scene.frozen, "scsi0:7")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
}
