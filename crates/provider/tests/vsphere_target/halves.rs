//! Whatever an attempt was cut short at is finished by the next, or cleaned up.

use vmferry_provider::{Kind, TargetHost};
use vmferry_testkit::vsphere::{Fault, Vsphere};
use vmferry_testkit::{MIB, Must as _};

use super::*;

/// The way after which the VM is not finished, but undone.
const UNDONE: usize = 1;
/// The way in which the call is made.
const LOST: usize = 3;

/// Fails a step once: by a fault, in its task, by a connection that ends, by one that ends when it was done.
fn ways(method: &str, at: u32) -> [Fault; 4] {
    [
        Fault::of(method, "HostCommunication").after(at),
        Fault::of(method, "GenericVmConfigFault").in_task().after(at),
        Fault::hang_up(method).after(at),
        Fault::lose_answer(method).after(at),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_finished_or_undone_when_making_it_fails() {
    a_step_fails("CreateVM_Task", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_finished_or_undone_when_a_change_fails() {
    a_step_fails("ReconfigVM_Task", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_finished_or_undone_when_moving_a_disk_fails() {
    a_step_fails("MoveVirtualDisk_Task", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_finished_or_undone_when_a_carrier_stays() {
    a_step_fails("Destroy_Task", 2).await;
}

/// Makes a VM of two disks, with one of the `count` calls of a method failing in every way, and calls again, or undoes it.
async fn a_step_fails(method: &str, count: u32) {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let staged = [Staged::new(32 * MIB, 1), Staged::new(24 * MIB, 2)];
    let disks = vec![
        disk("vda", DiskBus::Virtio, 48 * MIB),
        disk("vdb", DiskBus::Virtio, 24 * MIB),
    ];
    let faults = (0..count).flat_map(|at| {
        ways(method, at)
            .into_iter()
            .enumerate()
            .map(move |(way, fault)| (at, way, fault))
    });
    for (at, way, fault) in faults {
        let what = format!("{method} {at} {way}");
        let mut volumes = Vec::new();
        for (index, staged) in (0..).zip(&staged) {
            volumes.push(import(&host, index, staged).await.unwrap());
        }
        let spec = spec(disks.clone(), &volumes);
        server.inject(&fault);
        // A VM that was made is found by the very call whose answer was lost.
        let made = host.create_vm(&spec, &owner()).await;
        assert!(made.is_err() || (method, way) == ("CreateVM_Task", LOST), "{what}");
        if way != UNDONE {
            host.create_vm(&spec, &owner()).await.must(&what);
            assert_made(&server.state(), &staged, &what);
        }
        host.delete_created("web", &owner()).await.must(&what);
        for index in 0..2 {
            host.delete_volume(&volume(index), &owner()).await.must(&what);
        }
        assert_nothing(&server.state());
    }
}

#[track_caller]
fn assert_made(state: &State, staged: &[Staged], what: &str) {
    assert_eq!(state.vms.len(), 1, "{what}: {:?}", state.files);
    let disks = &state.vm("web").unwrap().disks;
    let sizes: Vec<_> = disks.iter().map(|disk| disk.bytes / MIB).collect();
    assert_eq!(sizes, [48, 24], "{what}");
    for (disk, staged) in disks.iter().zip(staged) {
        disk.assert_same(&staged.image(), Format::Qcow2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nowhere_is_told() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    let disks = vec![disk("vda", DiskBus::Virtio, 32 * MIB)];
    let error = host.create_vm(&spec(disks, &[id]), &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}
