//! VMs made of disks that were imported.

use vmferry_provider::{Hypervisor as _, Kind, PowerState, ScsiController, TargetHost, VmId, VmSelector};
use vmferry_testkit::MIB;
use vmferry_testkit::vsphere::{VmSeed, Vsphere};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_has_the_hardware_that_it_is_to_have() {
    for options in every_kind() {
        let server = Vsphere::with(&options);
        let host = connect(&server).await;
        let staged = [
            Staged::new(64 * MIB, 1),
            Staged::new(32 * MIB, 2),
            Staged::new(40 * MIB, 3),
        ];
        let mut volumes = Vec::new();
        for (index, staged) in (0..).zip(&staged) {
            volumes.push(import(&host, index, staged).await.unwrap());
        }
        let lsi = Disk {
            controller: Some(ScsiController::Lsi53c1030),
            boot_order: Some(1),
            ..disk("sda", DiskBus::Scsi, 32 * MIB)
        };
        let disks = vec![
            Disk {
                boot_order: Some(3),
                ..disk("vda", DiskBus::Virtio, 80 * MIB)
            },
            lsi,
            disk("sdb", DiskBus::Sata, 40 * MIB),
        ];
        let spec = spec(disks, &volumes);
        let created = host.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
        let again = host.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
        assert_eq!(created, again);

        let state = server.state();
        assert_eq!((state.vms.len(), state.leases.len()), (1, 0), "{:?}", state.files);
        let vm = state.vm("web").unwrap();
        assert_eq!(created.id.0, vm.id);
        assert_eq!(
            (vm.firmware.as_str(), vm.secure_boot, vm.cpus, vm.memory_mib),
            ("efi", true, 2, 512)
        );
        assert_eq!(vm.guest_id, "otherGuest64");
        let found: Vec<_> = vm
            .disks
            .iter()
            .map(|disk| (disk.controller.as_str(), disk.bus, disk.unit, disk.bytes / MIB))
            .collect();
        assert_eq!(
            found,
            [
                ("ParaVirtualSCSIController", 0, 0, 80),
                ("VirtualLsiLogicController", 1, 0, 32),
                ("VirtualAHCIController", 0, 0, 40)
            ]
        );
        for (index, staged) in staged.iter().enumerate() {
            vm.disks[index].assert_same(&staged.image(), Format::Qcow2);
        }
        let nics: Vec<_> = vm
            .nics
            .iter()
            .map(|nic| (nic.model.as_str(), nic.mac.as_str(), nic.address_type.as_str()))
            .collect();
        assert_eq!(
            nics,
            [
                ("VirtualVmxnet3", "52:54:00:00:00:01", "manual"),
                ("VirtualE1000e", "52:54:00:00:00:02", "manual")
            ]
        );
        let disk_files = vm.disks.iter().map(|disk| disk.file.as_str());
        assert_eq!(
            disk_files.collect::<Vec<_>>(),
            [
                "[LocalDS_0] web/web.vmdk",
                "[LocalDS_0] web/web_1.vmdk",
                "[LocalDS_0] web/web_2.vmdk"
            ]
        );
        assert!(
            state.files.iter().all(|file| file.starts_with("[LocalDS_0] web/")),
            "{:?}",
            state.files
        );

        assert_read_back(&host, &created.id, &spec.hardware).await;

        for power in [
            PowerState::On,
            PowerState::On,
            PowerState::Off,
            PowerState::Off,
            PowerState::On,
        ] {
            host.set_power(&created.id, &owner(), power).await.unwrap();
            assert_eq!(server.state().vm("web").unwrap().on, power == PowerState::On);
        }
        // It runs, and goes all the same.
        host.delete_created("web", &owner()).await.unwrap();
        host.delete_created("web", &owner()).await.unwrap();
        assert_nothing(&server.state());
    }
}

/// As the engine looks at it: in the same order, whatever the disks are on.
async fn assert_read_back(host: &VSphere, id: &VmId, wanted: &Hardware) {
    let selector = VmSelector {
        id: Some(id.0.clone()),
        name: "web".to_owned(),
    };
    let seen = host.find_vm(&selector).await.unwrap().hardware;
    let sizes = |hardware: &Hardware| hardware.disks.iter().map(|disk| disk.capacity).collect::<Vec<_>>();
    let cards = |hardware: &Hardware| {
        let card = |nic: &Nic| (nic.mac.clone(), nic.attachment.clone());
        hardware.nics.iter().map(card).collect::<Vec<_>>()
    };
    assert_eq!((sizes(&seen), cards(&seen)), (sizes(wanted), cards(wanted)));
    assert_eq!(
        (seen.firmware, seen.vcpus, seen.memory_bytes),
        (wanted.firmware, 2, 512 * MIB)
    );
    let boot: Vec<_> = seen.disks.iter().map(|disk| disk.boot_order).collect();
    assert_eq!(boot, [Some(2), Some(1), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_never_touched() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let other = server.seed(&VmSeed::new("web"));
    let carrier = server.seed(&VmSeed::new("vmferry-0f8fad5bd9cb-0"));
    let before = server.state();
    let staged = Staged::new(32 * MIB, 1);
    let taken = |error: Error| assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    taken(host.check_target(&plan(None), &owner()).await.unwrap_err());
    let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
    taken(open(&host, &id, &staged).await.err().unwrap());
    let disks = vec![disk("vda", DiskBus::Virtio, 32 * MIB)];
    taken(
        host.create_vm(&spec(disks, std::slice::from_ref(&id)), &owner())
            .await
            .unwrap_err(),
    );
    taken(
        host.set_power(&VmId(other), &owner(), PowerState::On)
            .await
            .unwrap_err(),
    );
    taken(
        open(&host, &VolumeId("LocalDS_0/vmferry-111111111111-0".into()), &staged)
            .await
            .err()
            .unwrap(),
    );
    host.delete_created("web", &owner()).await.unwrap();
    host.delete_volume(&volume(0), &owner()).await.unwrap();
    let after = server.state();
    assert_eq!((before.vms, before.files), (after.vms, after.files));
    assert!(!carrier.is_empty());
    let gone = host
        .set_power(&VmId("vm-9999".into()), &owner(), PowerState::On)
        .await
        .unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_the_server_does_not_know_is_any_guest() {
    let server = Vsphere::start();
    let host = connect(&server).await;
    let mut spec = spec(Vec::new(), &[]);
    spec.hardware.guest_os = Some("beos_64Guest".to_owned());
    spec.hardware.nics.clear();
    host.create_vm(&spec, &owner()).await.unwrap();
    assert_eq!(server.state().vm("web").unwrap().guest_id, "otherGuest64");
    host.delete_created("web", &owner()).await.unwrap();
    spec.hardware.guest_os = Some("ubuntu64Guest".to_owned());
    host.create_vm(&spec, &owner()).await.unwrap();
    assert_eq!(server.state().vm("web").unwrap().guest_id, "ubuntu64Guest");
    host.delete_created("web", &owner()).await.unwrap();
    assert_nothing(&server.state());
}
