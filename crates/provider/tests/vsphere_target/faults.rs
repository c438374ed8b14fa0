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
    server.name_lease_host("127.0.0.1:1");
    refused(&server, &staged, Kind::Unreachable, &["port 443"]).await;
    server.inject(&Fault::of("HttpNfcLeaseComplete", "InvalidState"));
    refused(&server, &staged, Kind::Busy, &["InvalidState"]).await;
    server.inject(&Fault::of("HttpNfcLeaseGetManifest", "HostCommunication").times(9));
    refused(&server, &staged, Kind::Unreachable, &["HostCommunication"]).await;
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
