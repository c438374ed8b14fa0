use proptest::prelude::*;

use super::*;
use crate::{DiskBus, ImageFormat, NicAttachment};

fn read(text: &str) -> VmConfig {
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    VmConfig::read(&lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

const WEB: &str = "
    agent: enabled=1,fstrim_cloned_disks=1
    bios: ovmf
    boot: order=scsi0;ide2;net0
    cores: 4
    cpu: host,flags=+aes
    description: made by hand
    efidisk0: local-lvm:vm-100-disk-1,efitype=4m,pre-enrolled-keys=1,size=4M
    ide2: local:iso/debian.iso,media=cdrom,size=600M
    ide3: local-lvm:vm-100-cloudinit,media=cdrom
    machine: pc-q35-8.1
    memory: 2048
    name: web
    net0: virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=5
    net1: e1000=BC:24:11:00:00:02,bridge=vmbr1
    numa: 0
    ostype: l26
    scsi0: local-lvm:vm-100-disk-0,discard=on,iothread=1,serial=abc,size=32G
    scsi1: local:100/vm-100-disk-2.qcow2,size=10G
    scsihw: virtio-scsi-single
    sockets: 2
    tags: prod;web
    tpmstate0: local-lvm:vm-100-disk-3,size=4M,version=v2.0
    unused0: local-lvm:vm-100-disk-9
";

#[test]
fn a_whole_vm_is_read() {
    let config = read(WEB);
    let hardware = &config.hardware;
    assert_eq!(config.name.as_deref(), Some("web"));
    assert_eq!(
        (config.tags.as_str(), config.description.as_str()),
        ("prod;web", "made by hand")
    );
    assert_eq!(
        config.unused,
        [("unused0".to_owned(), "local-lvm:vm-100-disk-9".to_owned())]
    );
    assert!(config.tpm.is_some() && config.efidisk.is_some() && config.lock.is_none() && !config.is_protected);
    assert_eq!(hardware.firmware, Firmware::Uefi { secure_boot: true });
    assert_eq!(hardware.machine.as_deref(), Some("pc-q35-8.1"));
    assert_eq!((hardware.vcpus, hardware.memory_bytes), (8, 2 << 30));
    assert_eq!(hardware.cpu_model.as_deref(), Some("host-passthrough"));
    assert_eq!(hardware.accel, Some(Accel::Hardware));
    assert!(hardware.guest_agent);
    assert_eq!(hardware.guest_os.as_deref(), Some("l26"));
    let disks: Vec<_> = hardware
        .disks
        .iter()
        .map(|disk| (disk.name.as_str(), disk.capacity, disk.boot_order))
        .collect();
    assert_eq!(disks, [("scsi0", 32 << 30, Some(1)), ("scsi1", 10 << 30, None)]);
    let first = &hardware.disks[0];
    assert_eq!(
        (first.bus, first.controller),
        (DiskBus::Scsi, Some(ScsiController::Virtio))
    );
    assert_eq!(
        (first.format, hardware.disks[1].format),
        (ImageFormat::Raw, ImageFormat::Qcow2)
    );
    assert_eq!(first.serial.as_deref(), Some("abc"));
    let nics: Vec<_> = hardware
        .nics
        .iter()
        .map(|nic| (nic.name.as_str(), &nic.attachment))
        .collect();
    let (tagged, plain) = (
        NicAttachment::Bridge("vmbr0.5".into()),
        NicAttachment::Bridge("vmbr1".into()),
    );
    assert_eq!(nics, [("eth0", &tagged), ("eth1", &plain)]);
}

#[test]
fn what_is_not_said_is_as_proxmox_takes_it() {
    let hardware = read("scsi0: l:vm-1-disk-0,size=1G").hardware;
    assert_eq!((hardware.vcpus, hardware.memory_bytes), (1, 512 << 20));
    assert_eq!(
        (hardware.firmware, hardware.machine.as_deref()),
        (Firmware::Bios, Some("pc"))
    );
    assert_eq!((hardware.cpu_model, hardware.arch.as_str()), (None, "x86_64"));
    assert_eq!(hardware.disks[0].controller, Some(ScsiController::Lsi53c895a));
    assert_eq!(hardware.disks[0].boot_order, Some(1));
    assert!(!hardware.guest_agent && hardware.nics.is_empty());
}

#[test]
fn the_newer_spellings_are_read() {
    let hardware =
        read("memory: current=4096\nmachine: type=q35,viommu=intel\ncpu: cputype=x86-64-v2-AES\nkvm: 0\nagent: 0")
            .hardware;
    assert_eq!(
        (hardware.memory_bytes, hardware.machine.as_deref()),
        (4 << 30, Some("q35"))
    );
    assert_eq!(
        (hardware.cpu_model, hardware.accel, hardware.guest_agent),
        (None, Some(Accel::Emulation), false)
    );
}

#[test]
fn ten_interfaces_are_in_order_of_their_numbers() {
    let line = |n: u32| format!("net{n}: virtio=aa:bb:cc:00:00:{n:02x},bridge=b");
    let text = [10, 2, 0].map(line).join("\n");
    let hardware = read(&text).hardware;
    let macs: Vec<_> = hardware.nics.iter().map(|nic| &nic.mac[15..]).collect();
    assert_eq!(macs, ["00", "02", "0a"]);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "((scsi|virtio|net|boot|memory|cpu|unused|efidisk)[0-9]{0,3}: .{0,40}\n){0,12}") {
        let config = read(&text);
        prop_assert_eq!(config.disks.len(), config.hardware.disks.len());
    }

    #[test]
    fn every_disk_is_found_once(
        disks in proptest::collection::btree_map((0_usize..4, 0_u32..4), 1_u64..1000, 0..10), boot in 0_usize..10
    ) {
        let slots: Vec<_> = disks.keys().map(|(bus, number)| Slot { bus: Bus::ALL[*bus], number: *number }).collect();
        let mut options: BTreeMap<_, _> = disks
            .iter()
            .map(|((bus, number), size)| (format!("{}{number}", Bus::ALL[*bus].name()), format!("s:v,size={size}G")))
            .collect();
        if let Some(slot) = slots.get(boot) {
            options.insert("boot".to_owned(), format!("order={slot}"));
        }
        let config = VmConfig::read(&options);
        let mut found: Vec<_> = config.hardware.disks.iter().map(|disk| (disk.name.clone(), disk.capacity >> 30)).collect();
        found.sort();
        let mut expected: Vec<_> = slots.iter().map(ToString::to_string).zip(disks.values().copied()).collect();
        expected.sort();
        prop_assert_eq!(found, expected);
        if let Some(slot) = slots.get(boot) {
            let booting = config.hardware.disks.iter().find(|disk| disk.boot_order == Some(1));
            prop_assert_eq!(booting.map(|disk| disk.name.clone()), Some(slot.to_string()));
            prop_assert_eq!(config.hardware.disks[0].bus, slot.bus.model());
        }
    }
}
