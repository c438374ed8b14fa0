//! VMs of ours and of others.

use std::time::Duration;

use vmferry_provider::{ImageFormat, Kind, Owner, PowerState, TargetHost, VmId};
use vmferry_testkit::Format;
use vmferry_testkit::proxmox::{Proxmox, SeedDisk, SeedVm, Version};

use crate::site::{NAME, Site, create, owner, undo, vm, volume, write};

#[tokio::test]
async fn power_is_switched_and_waited_for() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap()
        .id;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let made = create(&host, &vm(&[id])).await.unwrap();
    for power in [
        PowerState::On,
        PowerState::On,
        PowerState::Off,
        PowerState::Off,
        PowerState::On,
    ] {
        host.set_power(&made.id, &owner(), power).await.unwrap();
        let status = site.cluster.vm(NAME).unwrap().status;
        assert_eq!(status == "running", power == PowerState::On, "{status}");
    }
    // It moves, and is still found.
    let number = made.id.0.parse().unwrap();
    site.cluster.move_vm(number, "pve2");
    host.set_power(&made.id, &owner(), PowerState::Off).await.unwrap();
    site.cluster.lock_vm(number, Some("backup"));
    let error = host.set_power(&made.id, &owner(), PowerState::On).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains("backup"), "{error}");
    site.cluster.lock_vm(number, None);
    host.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
    // Running, it is stopped first.
    undo(&host, 1).await;
    site.assert_empty();
}

#[tokio::test]
async fn what_is_anothers_is_never_touched() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    site.cluster.seed(&SeedVm::new(150, NAME));
    // The tag alone does not make it ours.
    site.cluster
        .seed(&SeedVm::new(151, "other").set("tags", "vmferry-0f4b5c6d7e8f"));
    let before = site.cluster.inventory();
    for id in ["150", "151"] {
        let error = host
            .set_power(&VmId(id.to_owned()), &owner(), PowerState::On)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    }
    host.delete_created(NAME, &owner()).await.unwrap();
    host.delete_created("other", &owner()).await.unwrap();
    host.delete_created("nothing", &owner()).await.unwrap();
    let id = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap()
        .id;
    let error = host
        .create_vm(&vm(std::slice::from_ref(&id)), &owner())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    let stranger = Owner::new("1f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273");
    let error = host.open_sink(&id, &stranger, 10, None).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    let staged = site.cluster.volumes();
    host.delete_volume(&volume(0, ImageFormat::Qcow2), &stranger)
        .await
        .unwrap();
    host.delete_volume(&volume(1, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    assert_eq!(site.cluster.volumes(), staged);
    host.delete_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap();
    site.assert_is_there(&before);
    site.assert_sound();
}

/// It has no mark until its task has written it.
#[tokio::test]
async fn a_vm_that_takes_long_to_be_made_is_not_said_to_be_gone() {
    let site = Site::new(Version::V9);
    let host = site.host().await;
    let id = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap()
        .id;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    site.cluster.slow_tasks("qmcreate", Duration::from_secs(20));
    let killed = tokio::time::timeout(Duration::from_secs(1), create(&host, &vm(&[id]))).await;
    assert!(killed.is_err(), "{killed:?}");
    let host = site.host().await;
    let error = host.delete_created(NAME, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    undo(&host, 1).await;
    site.assert_empty();
}

/// An earlier VM of the id that ours gets, gone but for a volume of it.
pub(crate) fn leave_volume(site: &Site, storage: &str) -> Vec<String> {
    let image = site.image("stale.raw", Format::Raw);
    let id = 100;
    let disk = |key, storage| SeedDisk::new(key, &image, Format::Raw).on(storage);
    site.cluster.seed(
        &SeedVm::new(id, "gone")
            .disk(disk("scsi0", storage))
            .disk(disk("scsi1", Proxmox::PLAIN)),
    );
    for key in ["scsi0", "scsi1"] {
        site.cluster.set_config(id, key, None);
    }
    site.cluster.remove_vm(id);
    let left = site.cluster.volumes();
    assert_eq!(left.len(), 2, "{left:?}");
    left
}

#[tokio::test]
async fn volumes_of_an_earlier_vm_stay_on_a_storage_that_was_away_when_the_vm_was_made() {
    let site = Site::new(Version::V9);
    let stale = leave_volume(&site, Proxmox::THIN);
    site.cluster.storage_active(Proxmox::THIN, false);
    let host = site.host().await;
    let id = host
        .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
        .await
        .unwrap()
        .id;
    write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
    site.cluster.fail_task("qmconfig", Duration::ZERO, "copy failed");
    create(&host, &vm(std::slice::from_ref(&id))).await.unwrap_err();
    site.cluster.storage_active(Proxmox::THIN, true);
    undo(&host, 1).await;
    let mut volumes = site.cluster.volumes();
    volumes.sort();
    assert_eq!(volumes, stale);
}

#[tokio::test]
async fn volumes_of_an_earlier_vm_with_the_same_id_stay() {
    for storage in [Proxmox::LOCAL, Proxmox::THIN] {
        let mut site = Site::new(Version::V9);
        site.config.storage = Some(storage.to_owned());
        let stale = leave_volume(&site, storage);
        let host = site.host().await;
        let id = host
            .create_volume(&volume(0, ImageFormat::Qcow2), &owner())
            .await
            .unwrap()
            .id;
        write(&host, &id, &site.image("a.qcow2", Format::Qcow2)).await.unwrap();
        // A half-made VM.
        site.cluster.fail_task("qmconfig", Duration::ZERO, "copy failed");
        create(&host, &vm(std::slice::from_ref(&id))).await.unwrap_err();
        let left = format!(
            "{storage}:{}",
            if storage == Proxmox::THIN {
                "vm-100-disk-7"
            } else {
                "100/vm-100-disk-7.raw"
            }
        );
        site.cluster.leave_volume(&left);
        assert!(site.cluster.volumes().contains(&left));
        if storage == Proxmox::THIN {
            // Its freeing was cut short in the middle.
            let drive = format!("{left},serial=vmferry-stray");
            site.cluster.set_config(100, "scsi30", Some(&drive));
        }
        // Whole, it has nothing that is not its own.
        let spec = vm(std::slice::from_ref(&id));
        let made = create(&host, &spec).await.unwrap();
        assert_eq!(made.id.0, "100");
        let mut volumes = site.cluster.volumes();
        volumes.retain(|volume| !stale.contains(volume));
        assert_eq!(volumes, [site.cluster.disks(100)[0].volume.clone()]);
        site.cluster.leave_volume(&left);
        undo(&host, 1).await;
        assert_eq!(site.cluster.volumes(), stale);
        assert_eq!(site.cluster.vms().len(), 0);
        site.assert_sound();
    }
}
