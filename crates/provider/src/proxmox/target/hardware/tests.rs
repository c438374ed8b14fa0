use super::*;
use crate::{Accel, ImageFormat};

fn disk(bus: DiskBus, controller: Option<ScsiController>, boot_order: Option<u32>) -> Disk {
    Disk {
        name: "d".to_owned(),
        bus,
        controller,
        format: ImageFormat::Qcow2,
        capacity: 1 << 30,
        serial: None,
        boot_order,
    }
}

fn hardware() -> Hardware {
    Hardware {
        firmware: Firmware::Bios,
        machine: None,
        arch: "x86_64".to_owned(),
        accel: Some(Accel::Hardware),
        vcpus: 3,
        cpu_model: None,
        memory_bytes: (64 << 20) + 1,
        disks: Vec::new(),
        nics: vec![Nic {
            name: "eth0".to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            model: Some("vlance".to_owned()),
            attachment: NicAttachment::Bridge("vmbr0.5".to_owned()),
        }],
        guest_agent: true,
        guest_os: Some("windows9_64Guest".to_owned()),
    }
}

fn names(disks: &[Disk]) -> (String, &'static str) {
    let (slots, scsihw) = slots(disks).unwrap();
    let names: Vec<_> = slots.iter().map(ToString::to_string).collect();
    (names.join(" "), scsihw)
}

#[test]
fn a_disk_is_where_its_guest_has_a_driver() {
    use ScsiController::{Lsi53c895a, LsiSas1068, Megasas, Pvscsi, Virtio};
    let scsi = |controller| disk(DiskBus::Scsi, controller, None);
    assert_eq!(
        names(&[scsi(None), scsi(Some(Virtio))]),
        ("scsi0 scsi1".into(), "virtio-scsi-single")
    );
    assert_eq!(
        names(&[scsi(Some(Pvscsi)), scsi(Some(Virtio))]),
        ("scsi0 sata0".into(), "pvscsi")
    );
    assert_eq!(names(&[scsi(Some(Lsi53c895a))]), ("scsi0".into(), "lsi"));
    assert_eq!(
        names(&[scsi(Some(LsiSas1068)), scsi(Some(Megasas))]),
        ("sata0 scsi0".into(), "megasas")
    );
    let mixed = [
        DiskBus::Virtio,
        DiskBus::Ide,
        DiskBus::Virtio,
        DiskBus::Sata,
        DiskBus::Usb,
    ]
    .map(|bus| disk(bus, None, None));
    assert_eq!(
        names(&mixed),
        ("virtio0 ide0 virtio1 sata0 sata1".into(), "virtio-scsi-single")
    );
    let many: Vec<_> = (0..5).map(|_| disk(DiskBus::Ide, None, None)).collect();
    assert_eq!(slots(&many).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn disks_are_found_again_in_the_order_they_had() {
    use crate::proxmox::config::VmConfig;
    use DiskBus::{Ide, Scsi, Virtio};
    for (buses, orders) in [
        (vec![Virtio, Virtio, Virtio], vec![None, None, None]),
        (vec![Virtio, Virtio], vec![None, Some(1)]),
        (vec![Scsi, Scsi], vec![Some(2), Some(1)]),
        (vec![Virtio, Scsi, Virtio], vec![Some(1), None, None]),
        (vec![Virtio, Virtio, Ide], vec![Some(1), Some(2), Some(3)]),
    ] {
        let disks: Vec<_> = buses
            .iter()
            .zip(&orders)
            .map(|(bus, order)| disk(*bus, None, *order))
            .collect();
        let (slots, _) = slots(&disks).unwrap();
        let drives = slots.iter().map(|slot| (slot.to_string(), "s:v,size=1G".to_owned()));
        let config = drives.chain([("boot".to_owned(), boot(&disks, &slots))]).collect();
        let found = VmConfig::read(&config).hardware.disks;
        let found: Vec<_> = found.iter().map(|disk| disk.name.clone()).collect();
        let expected: Vec<_> = slots.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{config:?}");
        let first = orders.iter().position(|order| *order == Some(1)).unwrap_or(0);
        assert!(
            config["boot"].starts_with(&format!("order={}", slots[first])),
            "{config:?}"
        );
    }
}

#[test]
fn the_options_say_what_the_hardware_is() {
    let version = Version::new(8, 4);
    let get = |hardware: &Hardware| -> std::collections::BTreeMap<String, String> {
        options(hardware, "pvscsi", version, "lvm", &[], None)
            .unwrap()
            .into_iter()
            .collect()
    };
    let bios = get(&hardware());
    for (name, value) in [
        ("cores", "3"),
        ("memory", "65"),
        ("scsihw", "pvscsi"),
        ("ostype", "win10"),
        ("agent", "enabled=1"),
        ("cpu", "x86-64-v2-AES"),
        ("net0", "e1000=52:54:00:00:00:01,bridge=vmbr0,tag=5"),
    ] {
        assert_eq!(bios[name], value, "{name}");
    }
    assert!(!bios.contains_key("efidisk0") && !bios.contains_key("machine"));
    let mut uefi = hardware();
    uefi.firmware = Firmware::Uefi { secure_boot: true };
    uefi.cpu_model = Some("host-passthrough".to_owned());
    let uefi = get(&uefi);
    assert_eq!(
        (uefi["bios"].as_str(), uefi["machine"].as_str(), uefi["cpu"].as_str()),
        ("ovmf", "q35", "host")
    );
    assert_eq!(uefi["efidisk0"], "lvm:1,efitype=4m,pre-enrolled-keys=1");
    let arm = Hardware {
        arch: "aarch64".to_owned(),
        ..hardware()
    };
    assert_eq!(
        options(&arm, "lsi", version, "x", &[], None).unwrap_err().kind(),
        Kind::Unsupported
    );
}

#[test]
fn a_guest_is_known_by_the_names_of_others() {
    for (guest, own) in [
        (None, "l26"),
        (Some("l24"), "l24"),
        (Some("ubuntu64Guest"), "l26"),
        (Some("windows2019srvNext_64Guest"), "win11"),
        (Some("windows2019srv_64Guest"), "win10"),
        (Some("windows7Server64Guest"), "win7"),
        (Some("windows8Server64Guest"), "win8"),
        (Some("darwin20_64Guest"), "other"),
        (Some("solaris11_64Guest"), "solaris"),
    ] {
        assert_eq!(ostype(guest), own, "{guest:?}");
    }
}

#[test]
fn a_bridge_may_have_a_tag() {
    let known = ["vmbr0".to_owned(), "vmbr1.7".to_owned()];
    let read = |text: &str| Bridge::of(&NicAttachment::Network(text.to_owned()), &known, None);
    let bridge = |name: &str, tag| {
        Some(Bridge {
            name: name.to_owned(),
            tag,
        })
    };
    assert_eq!(read("vmbr0").unwrap(), bridge("vmbr0", None));
    assert_eq!(read("vmbr0.5").unwrap(), bridge("vmbr0", Some(5)));
    assert_eq!(read("vmbr0:4094").unwrap(), bridge("vmbr0", Some(4094)));
    assert_eq!(read("vmbr1.7").unwrap(), bridge("vmbr1.7", None));
    for text in ["vmbr0:4095", "", "a,tag=5", "a b"] {
        assert_eq!(read(text).unwrap_err().kind(), Kind::Invalid, "{text}");
    }
    assert_eq!(Bridge::of(&NicAttachment::User, &known, None).unwrap(), None);
    let other = NicAttachment::Other("direct".to_owned());
    assert_eq!(Bridge::of(&other, &known, None).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(
        Bridge::of(&other, &known, Some("vmbr0")).unwrap(),
        bridge("vmbr0", None)
    );
}

#[test]
fn a_serial_number_cannot_end_the_option() {
    let mut disk = disk(DiskBus::Virtio, None, None);
    disk.serial = Some("a,b=c 0123456789012345678901234".to_owned());
    let slot = Slot {
        bus: Bus::Virtio,
        number: 0,
    };
    assert_eq!(
        drive_options(&disk, slot, "lsi"),
        ",iothread=1,serial=a%2Cb%3Dc012345678901234"
    );
}
