//! Freezing, finding what was frozen, and letting it go.

use std::time::Duration;

use vmferry_testkit::Format;
use vmferry_testkit::vsphere::{DiskSeed, Fault, VmSeed, Vsphere};

use super::{Images, OTHER, TAG, assert_clean, connect, esx, named, owner, seed};
use crate::{Hypervisor, Kind, Owner, SourceHost};

#[tokio::test]
async fn a_running_vm_gets_a_snapshot_that_is_found_again_and_removed() {
    for server in [Vsphere::start(), esx()] {
        let images = Images::new();
        let disk = images.disk("a.raw", 8, 1);
        server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
        let vsphere = connect(&server).await;
        let vm = vsphere.find_vm(&named("web")).await.unwrap();
        assert_eq!(vsphere.frozen(&vm, &owner()).await.unwrap(), None);
        let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap();
        assert!(frozen.detail.contains("quiesced by VMware Tools"), "{}", frozen.detail);
        assert_eq!(server.state().vm("web").unwrap().snapshots, [format!("vmferry-{TAG}")]);

        // Whoever comes later finds it, and makes no second one.
        let other_process = connect(&server).await;
        let found = other_process.frozen(&vm, &owner()).await.unwrap().unwrap();
        assert_eq!(found.id, frozen.id);
        assert_eq!(vsphere.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
        assert_eq!(server.count("CreateSnapshot_Task"), 1);
        // It is nobody else's.
        assert_eq!(vsphere.frozen(&vm, &Owner::new(OTHER)).await.unwrap(), None);
        vsphere.release(&named("web"), &Owner::new(OTHER), false).await.unwrap();
        vsphere.release(&named("web"), &owner(), true).await.unwrap();
        assert_eq!(server.state().vm("web").unwrap().snapshots.len(), 1);

        vsphere.release(&named("web"), &owner(), false).await.unwrap();
        assert_clean(&server);
        vsphere.release(&named("web"), &owner(), false).await.unwrap();
        vsphere.release(&named("gone"), &owner(), false).await.unwrap();
        assert_eq!(vsphere.frozen(&vm, &owner()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn snapshots_of_others_stay() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let theirs = vsphere.freeze(&vm, &Owner::new(OTHER), false).await.unwrap();
    let ours = vsphere.freeze(&vm, &owner(), false).await.unwrap();
    assert_ne!(theirs.id, ours.id);
    vsphere.release(&named("web"), &owner(), false).await.unwrap();
    assert_eq!(server.state().vm("web").unwrap().snapshots, ["vmferry-1f4b5c6d7e8f"]);
    assert_eq!(
        vsphere.frozen(&vm, &Owner::new(OTHER)).await.unwrap().unwrap().id,
        theirs.id
    );
    vsphere.release(&named("web"), &Owner::new(OTHER), false).await.unwrap();
    assert_clean(&server);
}

#[tokio::test]
async fn a_guest_that_cannot_be_quiesced_is_frozen_without() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let mut without = seed("bare", &[(&disk, "pvscsi")]).running();
    without.tools = false;
    server.seed(&without);
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let fault = Fault::of("CreateSnapshot_Task", "ApplicationQuiesceFault").in_task();
    server.inject(&fault.saying("the writers of the guest failed"));
    let frozen = vsphere.freeze(&vm, &owner(), false).await.unwrap();
    assert!(frozen.detail.contains("not quiesced"), "{}", frozen.detail);
    assert!(
        frozen.detail.contains("the writers of the guest failed"),
        "{}",
        frozen.detail
    );
    let bare = vsphere.find_vm(&named("bare")).await.unwrap();
    let frozen = vsphere.freeze(&bare, &owner(), false).await.unwrap();
    assert!(frozen.detail.contains("VMware Tools do not run"), "{}", frozen.detail);
}

#[tokio::test]
async fn what_has_nothing_to_do_with_the_guest_is_not_tried_twice() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    for (fault, kind) in [
        ("RestrictedVersion", Kind::Unsupported),
        ("NoPermission", Kind::Denied),
        ("FileLocked", Kind::Busy),
    ] {
        server.inject(&Fault::of("CreateSnapshot_Task", fault));
        let error = vsphere.freeze(&vm, &owner(), false).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    server.inject(&Fault::of("CreateSnapshot_Task", "NoDiskSpace").in_task());
    let error = vsphere.freeze(&vm, &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert_clean(&server);
    // Another operation that ends soon is waited for.
    server.inject(&Fault::of("CreateSnapshot_Task", "TaskInProgress").times(2));
    vsphere.freeze(&vm, &owner(), false).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_removed_at_first_is_busy() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    vsphere.freeze(&vm, &owner(), false).await.unwrap();
    server.inject(&Fault::of("RemoveSnapshot_Task", "FileFault").in_task());
    let error = vsphere.release(&named("web"), &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains(&format!("vmferry-{TAG}")), "{error}");
    vsphere.release(&named("web"), &owner(), false).await.unwrap();
    assert_clean(&server);
}

#[tokio::test]
async fn a_snapshot_that_is_still_being_made_is_removed_too() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]).running());
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    server.inject(&Fault::hold_task("CreateSnapshot_Task"));
    let killed = tokio::spawn({
        let (vsphere, vm) = (vsphere.clone(), vm.clone());
        async move { vsphere.freeze(&vm, &owner(), false).await }
    });
    while server.count("CreateSnapshot_Task") == 0 {
        tokio::task::yield_now().await;
    }
    killed.abort();
    let vm = named("web");
    let owner = owner();
    let mut release = vsphere.release(&vm, &owner, false);
    let early = tokio::time::timeout(Duration::from_secs(1), &mut release).await;
    assert!(early.is_err(), "{early:?}");
    server.go_on();
    release.await.unwrap();
    assert_clean(&server);
    // A task that has ended is nothing to wait for.
    vsphere.release(&vm, &owner, false).await.unwrap();
}

#[tokio::test]
async fn a_vm_that_is_off_is_a_state_of_its_own() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    server.seed(&seed("web", &[(&disk, "pvscsi")]));
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let frozen = vsphere.freeze(&vm, &owner(), true).await.unwrap();
    assert!(frozen.id.0.starts_with("offline-"), "{frozen:?}");
    assert_eq!(vsphere.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
    assert_eq!(server.count("CreateSnapshot_Task"), 0);

    let info = vsphere.look_up(&named("web")).await.unwrap();
    vsphere.client.power_on(&info.moref).await.unwrap();
    assert_eq!(vsphere.frozen(&vm, &owner()).await.unwrap(), None);
    let error = vsphere.open_disk(&vm, &frozen.id, "scsi0:0").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
}

#[tokio::test]
async fn what_cannot_be_exported_is_refused_by_name() {
    let server = Vsphere::start();
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    let mut independent = DiskSeed::of(&disk, Format::Raw);
    independent.mode = "independent_persistent".to_owned();
    server.seed(
        &VmSeed::new("web")
            .disk(DiskSeed::of(&disk, Format::Raw))
            .disk(independent),
    );
    server.seed(&VmSeed::new("empty"));
    let vsphere = connect(&server).await;
    let vm = vsphere.find_vm(&named("web")).await.unwrap();
    let error = vsphere.check_source(&vm).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.to_string().contains("scsi0:1") && error.to_string().contains("independent"),
        "{error}"
    );
    assert_eq!(
        vsphere.freeze(&vm, &owner(), false).await.unwrap_err().kind(),
        Kind::Unsupported
    );
    let empty = vsphere.find_vm(&named("empty")).await.unwrap();
    let error = vsphere.check_source(&empty).await.unwrap_err();
    assert!(error.to_string().contains("no disk"), "{error}");
}

#[tokio::test]
async fn a_source_is_deleted_whether_it_runs_or_not_and_once() {
    for running in [true, false] {
        let server = Vsphere::start();
        let images = Images::new();
        let disk = images.disk("a.raw", 8, 1);
        let vm = seed("web", &[(&disk, "pvscsi")]);
        server.seed(&if running { vm.running() } else { vm });
        server.seed(&VmSeed::new("other"));
        let vsphere = connect(&server).await;
        // A restart of the server that forgets the task has deleted nothing.
        server.inject(&Fault::forget_task("Destroy_Task"));
        let error = vsphere.delete_source(&named("web")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Failed, "{error}");
        vsphere.delete_source(&named("web")).await.unwrap();
        vsphere.delete_source(&named("web")).await.unwrap();
        let state = server.state();
        assert!(state.vm("web").is_none() && state.vm("other").is_some());
        assert!(
            !state.files.iter().any(|file| file.contains("web")),
            "{:?}",
            state.files
        );
    }
}
