//! Domains: defined once, started and stopped, deleted once, and never another's.

use std::time::Duration;

use virt_sys as sys;
use vmferry_testkit::{Format, GuestSpec, Host, MIB, World, image, micro};

use super::{owner, session, stranger, volume_spec, write};
use crate::libvirt::Libvirt;
use crate::libvirt::target::vm::domain_xml;
use crate::libvirt::xml::DomainXml;
use crate::{
    Accel, Disk, DiskBus, Firmware, Hardware, ImageFormat, Kind, Nic, NicAttachment, PowerState, TargetDisk,
    TargetHost, VmId, VmSpec,
};

fn disk(name: &str, bus: DiskBus) -> Disk {
    Disk {
        name: name.to_owned(),
        bus,
        controller: None,
        format: ImageFormat::Qcow2,
        capacity: 16 * MIB,
        serial: None,
        boot_order: None,
    }
}

fn nic(attachment: NicAttachment) -> Nic {
    Nic {
        name: "eth0".to_owned(),
        mac: "52:54:00:12:34:56".to_owned(),
        model: Some("virtio".to_owned()),
        attachment,
    }
}

fn hardware(disks: Vec<Disk>) -> Hardware {
    Hardware {
        firmware: Firmware::Bios,
        machine: Some("pc-i440fx-rhel7.6.0".to_owned()),
        arch: "x86_64".to_owned(),
        accel: Some(Accel::Emulation),
        vcpus: 1,
        cpu_model: None,
        memory_bytes: 32 * MIB,
        disks,
        nics: vec![nic(NicAttachment::User)],
        guest_agent: true,
        guest_os: None,
    }
}

/// The micro guest, not yet defined, on a volume of ours.
async fn micro_guest(libvirt: &Libvirt, name: &str, disk: Disk) -> VmSpec {
    let folder = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (folder.path().join("raw"), folder.path().join("qcow2"));
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(16 * MIB).unwrap();
    micro::install(&file, "arrived");
    image::convert(&raw, Format::Raw, &qcow2, Format::Qcow2);

    let spec = volume_spec(name, 0, ImageFormat::Qcow2, 16 * MIB);
    let volume = libvirt.create_volume(&spec, &owner()).await.unwrap();
    let len = qcow2.metadata().unwrap().len();
    let sink = libvirt.open_sink(&volume.id, &owner(), len, None).await.unwrap();
    write(&*sink, &qcow2).await.unwrap();
    sink.finish(len).await.unwrap();
    VmSpec {
        name: name.to_owned(),
        hardware: hardware(vec![disk]),
        disks: vec![TargetDisk {
            volume: volume.id,
            format: volume.format,
        }],
    }
}

async fn delete_volume(libvirt: &Libvirt, name: &str) {
    let spec = volume_spec(name, 0, ImageFormat::Qcow2, 16 * MIB);
    libvirt.delete_volume(&spec, &owner()).await.unwrap();
}

#[tokio::test]
async fn a_vm_is_made_boots_stops_and_goes() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let world = World::of(&[&host], &[]);
    let name = "web <&> \"1\"";
    let spec = micro_guest(libvirt, name, disk("vda", DiskBus::Virtio)).await;

    let made = libvirt.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
    assert_eq!(libvirt.create_vm(&spec, &owner()).await.unwrap().done().unwrap(), made);
    assert_eq!(host.virsh(["domstate", name]), "shut off");

    libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
    let line = host.console_line(&made.id.0, "GUEST-BOOT", Duration::from_secs(30));
    assert!(line.contains("marker=arrived"), "{line}");
    libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
    libvirt.set_power(&made.id, &owner(), PowerState::Off).await.unwrap();
    libvirt.set_power(&made.id, &owner(), PowerState::Off).await.unwrap();
    assert_eq!(host.virsh(["domstate", name]), "shut off");

    // Deleting takes a running one, too, and all that libvirt keeps with it.
    libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
    host.virsh(["managedsave", name]);
    libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
    libvirt.delete_created(name, &owner()).await.unwrap();
    libvirt.delete_created(name, &owner()).await.unwrap();
    delete_volume(libvirt, name).await;
    // The host's own log, and who writes it.
    world.assert_unchanged_but(&[&host], &[], &["virtlogd", ".log"]);
    let error = libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn every_bus_boots() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    for (target, bus) in [("sda", DiskBus::Scsi), ("sda", DiskBus::Sata), ("hda", DiskBus::Ide)] {
        let spec = micro_guest(libvirt, "bus", disk(target, bus)).await;
        let made = libvirt.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
        libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap();
        host.console_line("bus", "GUEST-BOOT", Duration::from_secs(30));
        libvirt.delete_created("bus", &owner()).await.unwrap();
        delete_volume(libvirt, "bus").await;
    }
}

#[tokio::test]
async fn another_ones_vm_is_never_touched() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let spec = micro_guest(libvirt, "web", disk("vda", DiskBus::Virtio)).await;
    let foreign = host.boot(&GuestSpec::small("web"));
    let world = World::of(&[&host], &[]);
    let before = foreign.xml();

    let error = libvirt.create_vm(&spec, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    let id = VmId(host.virsh(["domuuid", "web"]));
    for power in [PowerState::Off, PowerState::On] {
        let error = libvirt.set_power(&id, &owner(), power).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NameTaken, "{error}");
    }
    libvirt.delete_created("web", &owner()).await.unwrap();
    assert_eq!(foreign.xml(), before);
    world.assert_unchanged(&[&host], &[]);
}

#[tokio::test]
async fn another_migrations_vm_is_another_ones() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let spec = micro_guest(libvirt, "web", disk("vda", DiskBus::Virtio)).await;
    let made = libvirt.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
    let world = World::of(&[&host], &[]);
    let taken = libvirt.create_vm(&spec, &stranger()).await.unwrap_err();
    assert_eq!(taken.kind(), Kind::NameTaken);
    let denied = libvirt
        .set_power(&made.id, &stranger(), PowerState::On)
        .await
        .unwrap_err();
    assert_eq!(denied.kind(), Kind::NameTaken);
    libvirt.delete_created("web", &stranger()).await.unwrap();
    world.assert_unchanged(&[&host], &[]);

    // And a VM of ours is not made of another's volume.
    let mut mixed = spec;
    mixed.name = "mixed".to_owned();
    host.virsh(["vol-create-as", "default", "private.qcow2", "1M"]);
    mixed.disks[0].volume.0 = "default/private.qcow2".to_owned();
    let error = libvirt.create_vm(&mixed, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NameTaken);
}

#[tokio::test]
async fn a_vm_that_does_not_start_says_why() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    let spec = micro_guest(libvirt, "web", disk("vda", DiskBus::Virtio)).await;
    let made = libvirt.create_vm(&spec, &owner()).await.unwrap().done().unwrap();
    delete_volume(libvirt, "web").await;
    let error = libvirt.set_power(&made.id, &owner(), PowerState::On).await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert_eq!(host.virsh(["domstate", "web"]), "shut off");
}

#[tokio::test]
async fn a_missing_firmware_is_named() {
    let (_host, connected) = session().await;
    let mut spec = micro_guest(&connected.libvirt, "web", disk("vda", DiskBus::Virtio)).await;
    spec.hardware.firmware = Firmware::Uefi { secure_boot: true };
    // Even where a firmware is installed, there is none for this pair.
    spec.hardware.arch = "i686".to_owned();
    spec.hardware.machine = Some("isapc".to_owned());
    let error = connected.libvirt.create_vm(&spec, &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("ovmf"), "{error}");
}

/// Defines what was rendered with libvirt's own schema check, reads what libvirt made of it, and removes it again.
async fn validated(libvirt: &Libvirt, spec: &VmSpec) -> DomainXml {
    let xml = domain_xml(libvirt, spec, &owner()).await.unwrap();
    let text = libvirt
        .handle
        .call("define", "a rendered domain", move |connect| {
            let domain = connect.define_domain_xml_flags(&xml, sys::VIR_DOMAIN_DEFINE_VALIDATE)?;
            let text = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
            domain.undefine_flags(sys::VIR_DOMAIN_UNDEFINE_NVRAM)?;
            Ok(text)
        })
        .await
        .unwrap();
    DomainXml::parse(&text).unwrap()
}

/// Tells QEMU's user about a UEFI firmware, as a distribution's package does. Nothing here boots it.
fn add_firmware(host: &Host, secure: bool) {
    let folder = host.dir().join("home/qemu/firmware");
    std::fs::create_dir_all(&folder).unwrap();
    let image = host.dir().join("firmware.fd");
    std::fs::write(&image, vec![0; 4096]).unwrap();
    let features = if secure {
        r#""secure-boot", "enrolled-keys", "requires-smm""#
    } else {
        ""
    };
    let image = image.display();
    let text = format!(
        r#"{{"description": "test", "interface-types": ["uefi"],
            "mapping": {{"device": "flash", "mode": "split",
                "executable": {{"filename": "{image}", "format": "raw"}},
                "nvram-template": {{"filename": "{image}", "format": "raw"}}}},
            "targets": [{{"architecture": "x86_64", "machines": ["pc-q35-*"]}}],
            "features": [{features}], "tags": []}}"#
    );
    std::fs::write(folder.join(format!("{secure}.json")), text).unwrap();
}

#[tokio::test]
async fn what_is_rendered_passes_libvirts_own_schema() {
    let (host, connected) = session().await;
    let libvirt = &connected.libvirt;
    add_firmware(&host, true);
    add_firmware(&host, false);
    let mut spec = micro_guest(libvirt, "a & <b> 'c' \"d\" ]]>", disk("sda", DiskBus::Sata)).await;
    let volume = spec.disks[0].clone();
    let buses = [
        ("vdb", DiskBus::Virtio),
        ("sdb", DiskBus::Scsi),
        ("sdc", DiskBus::Usb),
        ("", DiskBus::Virtio),
    ];
    for (name, bus) in buses {
        spec.hardware.disks.push(disk(name, bus));
        spec.disks.push(volume.clone());
    }
    spec.hardware.disks[1].serial = Some("WD-1234_a.b".to_owned());
    spec.hardware.disks[1].boot_order = Some(4);
    let attachments = [
        NicAttachment::Network("lan".to_owned()),
        NicAttachment::Bridge("br0".to_owned()),
    ];
    spec.hardware.nics.extend(attachments.map(|attachment| Nic {
        mac: format!(
            "52:54:00:00:00:0{}",
            u8::from(matches!(attachment, NicAttachment::Bridge(_)))
        ),
        model: Some("e1000e".to_owned()),
        ..nic(attachment)
    }));
    for (firmware, machine, model) in [
        (Firmware::Bios, "pc-i440fx-noble", None),
        (
            Firmware::Uefi { secure_boot: false },
            "pc-q35-rhel9.4.0",
            Some("host-passthrough"),
        ),
        (Firmware::Uefi { secure_boot: true }, "q35", Some("qemu64")),
    ] {
        spec.hardware.firmware = firmware;
        spec.hardware.machine = Some(machine.to_owned());
        spec.hardware.cpu_model = model.map(str::to_owned);
        let read = validated(libvirt, &spec).await;
        assert_eq!(read.name, spec.name);
        assert_eq!(read.owner, Some(owner().uid));
        assert_eq!(read.hardware.firmware, firmware);
        assert_eq!(
            read.hardware.nics.iter().map(|nic| &nic.attachment).collect::<Vec<_>>(),
            spec.hardware.nics.iter().map(|nic| &nic.attachment).collect::<Vec<_>>()
        );
        assert_eq!(
            (
                read.hardware.memory_bytes,
                read.hardware.vcpus,
                read.hardware.guest_agent
            ),
            (32 * MIB, 1, true)
        );
        let targets: Vec<_> = read
            .disks
            .iter()
            .map(|disk| (disk.target.as_str(), disk.boot_order))
            .collect();
        assert_eq!(
            targets,
            [
                ("vdb", Some(1)),
                ("sda", None),
                ("sdb", None),
                ("sdc", None),
                ("vda", None)
            ]
        );
    }
    delete_volume(libvirt, &spec.name).await;
}
