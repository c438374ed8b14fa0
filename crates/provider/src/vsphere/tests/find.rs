//! VMs and their hardware.

use vmferry_testkit::vsphere::{Firmware as SeedFirmware, Options, VmSeed, Vsphere};

use super::{Images, connect, esx, named, seed};
use crate::vsphere::soap::Arg;
use crate::{DiskBus, Firmware, Hypervisor, Kind, NicAttachment, PowerState, ScsiController, VmSelector};

#[tokio::test]
async fn a_vm_is_found_by_id_path_or_only_name() {
    let server = Vsphere::start();
    let id = server.seed(&VmSeed::new("web"));
    let vsphere = connect(&server).await;
    for (given, name) in [
        (None, "web"),
        (None, "DC0/vm/web"),
        (None, "/DC0/vm/web"),
        (Some(id.as_str()), "whatever"),
    ] {
        let selector = VmSelector {
            id: given.map(str::to_owned),
            name: name.to_owned(),
        };
        let vm = vsphere.find_vm(&selector).await.unwrap();
        assert_eq!((vm.id.0.as_str(), vm.name.as_str()), (id.as_str(), "web"));
    }
    for (given, name) in [
        (None, "nobody"),
        (None, "DC0/vm"),
        (None, "DC0/vm/x"),
        (Some("vm-99999"), "web"),
    ] {
        let selector = VmSelector {
            id: given.map(str::to_owned),
            name: name.to_owned(),
        };
        let error = vsphere.find_vm(&selector).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn a_name_that_several_have_is_refused_with_their_ids() {
    let server = Vsphere::start();
    let first = server.seed(&VmSeed::new("web"));
    let vsphere = connect(&server).await;
    let folder = vsphere.client.find_by_path("DC0/vm").await.unwrap().unwrap();
    let name = [Arg::text("name", "apps")];
    vsphere.client.call(&folder, "CreateFolder", &name).await.unwrap();
    let mut twin = VmSeed::new("web");
    twin.folder = Some("apps".to_owned());
    let second = server.seed(&twin);
    let error = vsphere.find_vm(&named("web")).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(text.contains(&first) && text.contains(&second), "{text}");
    let found = vsphere.find_vm(&named("DC0/vm/apps/web")).await.unwrap();
    assert_eq!(found.id.0, second);
}

#[tokio::test]
async fn hardware_is_read_as_it_is() {
    let server = Vsphere::with(&Options {
        portgroups: 1,
        ..Options::default()
    });
    let images = Images::new();
    let disk = images.disk("a.raw", 8, 1);
    let larger = images.disk("b.raw", 16, 4);
    let mut vm = seed(
        "web",
        &[
            (&larger, "pvscsi"),
            (&disk, "pvscsi"),
            (&disk, "lsisas1068"),
            (&disk, "lsilogic"),
            (&disk, "sata"),
            (&disk, "nvme"),
            (&disk, "ide"),
        ],
    )
    .nic("00:50:56:AA:BB:01", "vmxnet3", "VM Network")
    .nic("00:50:56:aa:bb:02", "e1000e", "DC0_DVPG0");
    vm.firmware = SeedFirmware::SecureEfi;
    (vm.cpus, vm.memory_mib) = (3, 256);
    vm.guest_id = "ubuntu64Guest".to_owned();
    server.seed(&vm.running());
    let vsphere = connect(&server).await;
    let found = vsphere.find_vm(&named("web")).await.unwrap();
    let hardware = &found.hardware;
    assert_eq!(found.power, PowerState::On);
    assert_eq!(hardware.firmware, Firmware::Uefi { secure_boot: true });
    assert_eq!((hardware.vcpus, hardware.memory_bytes), (3, 256 << 20));
    assert_eq!(hardware.guest_os.as_deref(), Some("ubuntu64Guest"));
    assert_eq!(hardware.arch, "x86_64");
    assert!(hardware.guest_agent);
    let disks: Vec<_> = hardware
        .disks
        .iter()
        .map(|disk| (disk.name.as_str(), disk.bus, disk.controller, disk.capacity >> 20))
        .collect();
    assert_eq!(
        disks,
        [
            ("ide0:0", DiskBus::Ide, None, 8),
            ("scsi0:0", DiskBus::Scsi, Some(ScsiController::Pvscsi), 16),
            ("scsi0:1", DiskBus::Scsi, Some(ScsiController::Pvscsi), 8),
            ("scsi1:0", DiskBus::Scsi, Some(ScsiController::LsiSas1068), 8),
            ("scsi2:0", DiskBus::Scsi, Some(ScsiController::Lsi53c1030), 8),
            ("sata0:0", DiskBus::Sata, None, 8),
            ("nvme0:0", DiskBus::Sata, None, 8),
        ]
    );
    let nics: Vec<_> = hardware
        .nics
        .iter()
        .map(|nic| {
            (
                nic.name.as_str(),
                nic.mac.as_str(),
                nic.model.as_deref(),
                nic.attachment.clone(),
            )
        })
        .collect();
    let network = |name: &str| NicAttachment::Network(name.to_owned());
    assert_eq!(
        nics,
        [
            ("eth0", "00:50:56:aa:bb:01", Some("vmxnet3"), network("VM Network")),
            ("eth1", "00:50:56:aa:bb:02", Some("e1000e"), network("DC0_DVPG0")),
        ]
    );
}

#[tokio::test]
async fn a_host_alone_is_no_different() {
    let server = esx();
    let id = server.seed(&VmSeed::new("web"));
    let vsphere = connect(&server).await;
    assert!(vsphere.describe().starts_with("ESXi host"), "{}", vsphere.describe());
    assert_eq!(vsphere.find_vm(&named("web")).await.unwrap().id.0, id);
    assert_eq!(vsphere.find_vm(&named("ha-datacenter/vm/web")).await.unwrap().id.0, id);
}
