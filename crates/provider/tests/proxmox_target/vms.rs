//! VMs of ours and of others.

use vmferry_provider::{ImageFormat, Kind, Owner, PowerState, TargetHost, VmId};
use vmferry_testkit::Format;
use vmferry_testkit::proxmox::{SeedVm, Version};

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
    assert_eq!(site.cluster.inventory(), before);
    site.assert_sound();
}
