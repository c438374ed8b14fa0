//! What goes wrong at the other side is told as what it is, and leaves nothing.

use serde_json::json;
use vmferry_provider::{Kind, TargetHost};
use vmferry_testkit::MIB;
use vmferry_testkit::vsphere::{Fault, Vsphere};

use super::*;

/// An import that must fail: with this kind, these words, and nothing left.
async fn refused(server: &Vsphere, staged: &Staged, kind: Kind, words: &[&str]) {
    let host = connect(server).await;
    let error = import(&host, 0, staged).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    await_nothing(server);
    server.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_import_is_told_and_leaves_nothing() {
    let server = Vsphere::start();
    let staged = Staged::new(32 * MIB, 1);
    let privilege = json!({ "privilegeId": "VApp.Import" });
    server.inject(&Fault::of("ImportVApp", "NoPermission").with(privilege));
    refused(&server, &staged, Kind::Denied, &["VApp.Import", "role"]).await;
    server.inject(&Fault::of("ImportVApp", "RestrictedVersion"));
    refused(&server, &staged, Kind::Unsupported, &["free ESXi licence"]).await;
    server.inject(&Fault::of("ImportVApp", "DuplicateName"));
    refused(&server, &staged, Kind::Busy, &["DuplicateName"]).await;
    server.cut_next_transfer(2 * MIB);
    refused(&server, &staged, Kind::Unreachable, &["127.0.0.1"]).await;
    server.spoil_checksums(1);
    refused(&server, &staged, Kind::Failed, &["checksum"]).await;
    server.omit_from_manifest(1);
    refused(&server, &staged, Kind::Failed, &["does not have the disk"]).await;
    server.name_lease_host("127.0.0.1:1");
    refused(&server, &staged, Kind::Unreachable, &["port 443"]).await;
    for status in [401, 403] {
        server.refuse_next_transfer(status);
        refused(&server, &staged, Kind::Failed, &[&status.to_string()]).await;
    }
    server.inject(&Fault::of("HttpNfcLeaseComplete", "InvalidState"));
    refused(&server, &staged, Kind::Busy, &["InvalidState"]).await;
    server.inject(&Fault::of("HttpNfcLeaseGetManifest", "HostCommunication").times(9));
    refused(&server, &staged, Kind::Unreachable, &["HostCommunication"]).await;
    // A lease that went with its session is no reason to give up.
    for method in ["HttpNfcLeaseGetManifest", "HttpNfcLeaseComplete"] {
        server.inject(&Fault::of(method, "ManagedObjectNotFound").times(9));
        refused(&server, &staged, Kind::Failed, &["the lease is gone"]).await;
    }
    server.set_capacity("LocalDS_0", 3 * MIB);
    refused(&server, &staged, Kind::NoSpace, &["LocalDS_0", "room"]).await;
    server.set_capacity("LocalDS_0", 1 << 40);
    let host = connect(&server).await;
    import(&host, 0, &staged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_killed_costs_one_attempt() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(64 * MIB, 1);
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    // Between calls nobody notices.
    server.kill_sessions();
    let sink = open(&host, &id, &staged).await.unwrap();
    write(&*sink, &staged.object, staged.object.len() / 2).await.unwrap();
    // In the middle the server takes back what the session made.
    server.kill_sessions();
    let rest = staged.object[staged.object.len() / 2..].to_vec();
    let at = staged.len() / 2;
    let written = sink.write(at, Buf::copy_of(&rest)).await;
    let error = match written {
        Ok(()) => sink.finish(staged.len()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error.kind(), Kind::Failed | Kind::Unreachable), "{error}");
    await_nothing(&server);
    import(&host, 0, &staged).await.unwrap();
    assert_content(&server, "vmferry-0f8fad5bd9cb-0", 0, &staged.image());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_costs_one_attempt() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(64 * MIB, 1);
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    let sink = open(&host, &id, &staged).await.unwrap();
    let half = staged.object.len() / 2;
    write(&*sink, &staged.object, half).await.unwrap();
    server.restart(Duration::from_secs(4));
    let rest = Buf::copy_of(&staged.object[half..]);
    let error = match sink.write(half as u64, rest).await {
        Ok(()) => sink.finish(staged.len()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error.kind(), Kind::Failed | Kind::Unreachable), "{error}");
    // While it is away, that is what is told.
    let error = host.check_target(&plan(None), &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("503"), "{error}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    import(&host, 0, &staged).await.unwrap();
    assert_content(&server, "vmferry-0f8fad5bd9cb-0", 0, &staged.image());
    host.delete_volume(&volume(0), &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operation_that_is_in_the_way_for_a_moment_is_waited_for() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(32 * MIB, 1);
    let id = import(&host, 0, &staged).await.unwrap();
    for (method, fault) in [
        ("CreateVM_Task", "ConcurrentAccess"),
        ("ReconfigVM_Task", "TaskInProgress"),
        ("MoveVirtualDisk_Task", "ResourceInUse"),
        ("PowerOnVM_Task", "MethodDisabled"),
    ] {
        server.inject(&Fault::of(method, fault));
        server.inject(&Fault::of(method, fault).in_task());
    }
    let spec = spec(vec![disk("vda", DiskBus::Virtio, 48 * MIB)], &[id]);
    let created = host.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
    let on = vmferry_provider::PowerState::On;
    host.set_power(&created.id, &owner(), on).await.unwrap();
    assert!(server.state().vm("web").unwrap().on);
    // One that stays is told.
    server.inject(&Fault::of("PowerOffVM_Task", "TaskInProgress").times(9));
    let off = vmferry_provider::PowerState::Off;
    let error = host.set_power(&created.id, &owner(), off).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    server.clear();
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_alive_and_one_that_is_lost_is_told() {
    let server = Vsphere::with(&Options {
        lease_timeout: Duration::from_secs(3),
        ..Options::default()
    });
    let host = connect(&server).await;
    let staged = Staged::new(32 * MIB, 1);
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    let sink = open(&host, &id, &staged).await.unwrap();
    write(&*sink, &staged.object, MIB as usize).await.unwrap();
    // Slower than the lease's own patience.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.state().leases.len(), 1);
    server.set_lease_timeout(Duration::ZERO);
    vmferry_testkit::wait_for("the end of the lease", SOON, || {
        server.state().leases.is_empty().then_some(())
    });
    let rest = Buf::copy_of(&staged.object[MIB as usize..]);
    let error = match sink.write(MIB, rest).await {
        Ok(()) => sink.finish(staged.len()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(error.kind(), Kind::Failed | Kind::Unreachable | Kind::Busy),
        "{error}"
    );
    await_nothing(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_making_and_starting_a_vm_are_told() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let mut spec = spec(Vec::new(), &[]);
    for (fault, kind, word) in [
        ("NoPermission", Kind::Denied, "VirtualMachine.Inventory.Create"),
        ("RestrictedVersion", Kind::Unsupported, "free ESXi licence"),
        ("InsufficientResourcesFault", Kind::Failed, "InsufficientResourcesFault"),
    ] {
        let fields = json!({ "privilegeId": "VirtualMachine.Inventory.Create" });
        server.inject(&Fault::of("CreateVM_Task", fault).in_task().with(fields));
        let error = host.create_vm(&spec, &owner()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_nothing(&server.state());
    }
    spec.hardware.nics[1].attachment = NicAttachment::Network("nowhere".to_owned());
    let error = host.create_vm(&spec, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    spec.hardware.nics.clear();
    let created = host.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
    server.inject(&Fault::of("PowerOnVM_Task", "NoCompatibleHost").in_task());
    let on = vmferry_provider::PowerState::On;
    let error = host.set_power(&created.id, &owner(), on).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    host.set_power(&created.id, &owner(), on).await.unwrap();
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_restart_forgot_is_no_success() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(32 * MIB, 1);
    let id = import(&host, 0, &staged).await.unwrap();
    let spec = spec(vec![disk("vda", DiskBus::Virtio, 32 * MIB)], &[id]);
    for method in [
        "CreateVM_Task",
        "MoveVirtualDisk_Task",
        "ReconfigVM_Task",
        "Destroy_Task",
    ] {
        server.inject(&Fault::forget_task(method));
        let error = host.create_vm(&spec, &owner()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Failed, "{method}: {error}");
    }
    host.create_vm(&spec, &owner()).await.unwrap();
    server.inject(&Fault::forget_task("Destroy_Task"));
    let error = host.delete_created("web", &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shows_no_configuration_is_nobodys_until_it_does() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(32 * MIB, 1);
    let id = import(&host, 0, &staged).await.unwrap();
    host.create_vm(&spec(Vec::new(), &[]), &owner()).await.unwrap();
    let carrier = "vmferry-0f8fad5bd9cb-0";
    for hidden in [carrier, "web"] {
        server.hide_configuration(hidden, true);
    }
    let away = |error: Error| assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    away(host.delete_volume(&volume(0), &owner()).await.unwrap_err());
    away(host.delete_created("web", &owner()).await.unwrap_err());
    away(host.check_target(&plan(None), &owner()).await.unwrap_err());
    away(open(&host, &id, &staged).await.err().unwrap());
    away(host.create_vm(&spec(Vec::new(), &[]), &owner()).await.unwrap_err());
    for hidden in [carrier, "web"] {
        server.hide_configuration(hidden, false);
    }
    host.delete_volume(&volume(0), &owner()).await.unwrap();
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_still_being_made_is_deleted_too() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    server.inject(&Fault::hold_task("CreateVM_Task"));
    let killed = tokio::spawn({
        let host = host.clone();
        async move { host.create_vm(&spec(Vec::new(), &[]), &owner()).await }
    });
    while server.count("CreateVM_Task") == 0 {
        tokio::task::yield_now().await;
    }
    killed.abort();
    let owner = owner();
    let mut deleted = host.delete_created("web", &owner);
    let early = tokio::time::timeout(Duration::from_secs(1), &mut deleted).await;
    assert!(early.is_err(), "{early:?}");
    server.go_on();
    deleted.await.unwrap();
    assert_nothing(&server.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_an_earlier_attempt_still_moves_is_waited_for() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = Staged::new(32 * MIB, 1);
    let id = import(&host, 0, &staged).await.unwrap();
    let spec = spec(vec![disk("vda", DiskBus::Virtio, 32 * MIB)], &[id]);
    for fault in ["FileAlreadyExists", "FileLocked"] {
        server.inject(&Fault::of("MoveVirtualDisk_Task", fault).in_task());
        let error = host.create_vm(&spec, &owner()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{error}");
    }
    server.inject(&Fault::of("DeleteVirtualDisk_Task", "FileLocked").in_task());
    let error = host.delete_volume(&volume(0), &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    host.create_vm(&spec, &owner()).await.unwrap();
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}
