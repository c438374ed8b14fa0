//! Freezing and reading a VM that runs.

use vmferry_provider::{FrozenId, Kind, SourceHost};
use vmferry_testkit::{Counters, DiskSpec, Format, GuestSpec, Host, MIB, World};

use crate::{Way, copy, find, named, owner};

fn two_disks(name: &str) -> GuestSpec {
    GuestSpec::small(name).disk(DiskSpec::raw(24 * MIB).noise(4 * MIB))
}

/// Freeze, read both disks while the guest writes, finish, release: with a new connection for each step, as after a crash.
async fn round(way: Way, host: &Host) {
    // Longer than the 20 characters that libvirt takes of it for the domain's folder.
    const NAME: &str = "guest-with-a-name-of-thirty-one";
    let guest = host.boot(&two_disks(NAME));
    let run = guest.run_id();
    let before = World::of(&[host], &[]);

    let libvirt = way.connect().await;
    let vm = find(&libvirt, NAME).await;
    assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap(), None);
    libvirt.check_source(&vm).await.unwrap();
    let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap();
    assert!(frozen.id.0.starts_with("vmferry-0f4b5c6d7e8f-"), "{frozen:?}");
    assert!(frozen.detail.contains("crash-consistent"), "{frozen:?}");
    drop(libvirt);

    let libvirt = way.connect().await;
    assert_eq!(libvirt.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
    assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
    let at_freeze = guest.counters();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let (first, second) = (
        libvirt
            .open_disk(&vm, &frozen.id, "vda")
            .await
            .unwrap()
            .into_random()
            .unwrap(),
        libvirt
            .open_disk(&vm, &frozen.id, "vdb")
            .await
            .unwrap()
            .into_random()
            .unwrap(),
    );
    let (vda, vdb) = (copy(&*first).await, copy(&*second).await);
    let counters = Counters::read(vda.path(), Format::Raw);
    counters.assert_consistent_with(Counters::read_second_disk(vdb.path(), Format::Raw));
    assert!(
        counters.a <= at_freeze.a + 1,
        "{counters:?} was read after {at_freeze:?}"
    );
    assert!(second.map().await.unwrap().data_bytes() < 8 * MIB);
    // The same bytes again: the state does not move.
    let again = copy(&*first).await;
    assert!(std::fs::read(again.path()).unwrap() == std::fs::read(vda.path()).unwrap());
    first.finish().await.unwrap();
    second.finish().await.unwrap();
    drop((first, second));

    for _ in 0..2 {
        libvirt.release(&named(NAME), &owner(), false).await.unwrap();
    }
    assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap(), None);
    let gone = libvirt.open_disk(&vm, &frozen.id, "vda").await.err().unwrap();
    assert_eq!(gone.kind(), Kind::FrozenStateGone, "{gone}");
    assert_eq!(guest.run_id(), run, "the guest was restarted");
    let later = guest.counters();
    assert!(later.a > counters.a, "the guest stands still: {later:?}");
    drop(libvirt);
    before.assert_unchanged(&[host], &[]);
    way.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_over_a_unix_socket() {
    let host = Host::session("a");
    round(Way::unix(&host), &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_over_tcp() {
    let host = Host::system("a");
    round(Way::tcp(&host), &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_guest_over_ssh() {
    let host = Host::system("a");
    round(Way::ssh(&host), &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_guest_has_lost_the_state_and_nothing_is_left() {
    for way_of in [Way::ssh, Way::tcp] {
        let host = Host::system("a");
        let guest = host.boot(&two_disks("g1"));
        let before = World::of(&[&host], &[]);
        let way = way_of(&host);
        let libvirt = way.connect().await;
        let vm = find(&libvirt, "g1").await;
        let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap();
        let disk = libvirt
            .open_disk(&vm, &frozen.id, "vda")
            .await
            .unwrap()
            .into_random()
            .unwrap();
        guest.destroy();
        guest.start();
        let error = disk.finish().await.unwrap_err();
        assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
        let error = crate::try_copy(&*disk).await.err().unwrap();
        assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
        assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap(), None);
        let error = libvirt.open_disk(&vm, &frozen.id, "vda").await.err().unwrap();
        assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
        let anew = libvirt.freeze(&vm, &owner(), false).await.unwrap();
        assert_ne!(anew.id, frozen.id);
        libvirt.release(&named("g1"), &owner(), false).await.unwrap();
        drop((disk, libvirt));
        before.assert_unchanged(&[&host], &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_guest_that_is_destroyed_leaves_nothing_after_release() {
    let host = Host::session("a");
    let guest = host.boot(&GuestSpec::small("g1"));
    let before = World::of(&[&host], &[]);
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap();
    let disk = libvirt
        .open_disk(&vm, &frozen.id, "vda")
        .await
        .unwrap()
        .into_random()
        .unwrap();
    guest.destroy();
    let error = disk.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    let offline = libvirt.frozen(&vm, &owner()).await.unwrap().unwrap();
    assert!(offline.id.0.starts_with("offline-"), "{offline:?}");
    libvirt.release(&named("g1"), &owner(), false).await.unwrap();
    before.assert_unchanged_but(&[&host], &[], &["domain g1", "process qemu", "disk g1"]);
    host.virsh(["undefine", "g1"]);
    libvirt.release(&named("g1"), &owner(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_snapshot_is_a_checkpoint_where_all_disks_are_qcow2() {
    let host = Host::session("a");
    let guest = host.boot(&GuestSpec::small("g1"));
    let before = World::of(&[&host], &[]);
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    let frozen = libvirt.freeze(&vm, &owner(), true).await.unwrap();
    assert!(frozen.detail.contains("checkpoint"), "{frozen:?}");
    libvirt.release(&named("g1"), &owner(), true).await.unwrap();
    assert_eq!(host.virsh(["checkpoint-list", "g1", "--name"]), frozen.id.0);
    guest.destroy();
    let error = libvirt.release(&named("g1"), &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains("start the VM"), "{error}");
    guest.start();
    libvirt.release(&named("g1"), &owner(), false).await.unwrap();
    before.assert_unchanged(&[&host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_disk_has_no_checkpoint_and_says_so() {
    let host = Host::session("a");
    host.boot(&two_disks("g1"));
    let before = World::of(&[&host], &[]);
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    let frozen = libvirt.freeze(&vm, &owner(), true).await.unwrap();
    assert!(
        frozen
            .detail
            .contains("no checkpoint because disk \"vdb\" is not qcow2"),
        "{frozen:?}"
    );
    libvirt.release(&named("g1"), &owner(), true).await.unwrap();
    before.assert_unchanged(&[&host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_another_is_not_touched() {
    let host = Host::session("a");
    host.boot(&GuestSpec::small("g1"));
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    host.virsh(["backup-begin", "g1"]);
    let job = || host.virsh(["backup-dumpxml", "g1"]);
    if let Ok(xml) = host.try_virsh(["backup-dumpxml", "g1"]) {
        // A push job of a small disk may have ended already.
        assert!(xml.contains("push"), "{xml}");
    }
    let other = vmferry_provider::Owner::new("aaaaaaaaaaaa");
    let theirs = loop {
        match libvirt.freeze(&vm, &other, false).await {
            Ok(frozen) => break frozen,
            Err(error) => assert_eq!(error.kind(), Kind::Busy, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let error = libvirt.freeze(&vm, &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains(&theirs.id.0), "{error}");
    libvirt.release(&named("g1"), &owner(), false).await.unwrap();
    assert!(job().contains(&theirs.id.0));
    let wrong = FrozenId("vmferry-aaaaaaaaaaaa-00000000".into());
    let error = libvirt.open_disk(&vm, &wrong, "vda").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    libvirt.release(&named("g1"), &other, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_disk_on_a_chain_is_read_whole() {
    let host = Host::session("a");
    let disk = DiskSpec::qcow2(16 * MIB).backing(&[Format::Raw, Format::Qcow2]);
    host.boot(&GuestSpec::micro("g1").disk(disk));
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    libvirt.check_source(&vm).await.unwrap();
    let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap();
    let source = libvirt
        .open_disk(&vm, &frozen.id, "vda")
        .await
        .unwrap()
        .into_random()
        .unwrap();
    let vda = copy(&*source).await;
    for layer in 0..3u8 {
        let offset = 4 * MIB + u64::from(layer) * (64 << 10);
        vmferry_testkit::image::assert_pattern(vda.path(), Format::Raw, offset, 64 << 10, layer + 1);
    }
    Counters::read(vda.path(), Format::Raw).assert_consistent();
    libvirt.release(&named("g1"), &owner(), false).await.unwrap();
}
