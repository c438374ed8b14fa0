//! What is rendered is read back, whatever the names; and real descriptions are read as they are meant.

use proptest::prelude::*;

use super::caps::Capabilities;
use super::render::Platform;
use super::*;
use crate::{Accel, Disk, DiskBus, Firmware, Hardware, ImageFormat, Nic, NicAttachment, Owner};

/// A running domain as libvirt 11.3 describes it, shortened.
const RUNNING: &str = "<domain type='kvm' id='7'>
  <name>web &amp; mail</name>
  <uuid>0b2f1f7e-1111-4222-8333-444455556666</uuid>
  <metadata><f:migration xmlns:f='https://vmferry.dev/ns/1' uid='u-1'/></metadata>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static' current='2'>4</vcpu>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
    <firmware><feature enabled='yes' name='enrolled-keys'/><feature enabled='yes' name='secure-boot'/></firmware>
    <loader readonly='yes' secure='yes' type='pflash' format='raw'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>
  </os>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <devices>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/d/b'/><backingStore/><target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/d/top' index='1'/>
      <backingStore type='file' index='2'><format type='qcow2'/><source file='/d/mid'/>
        <backingStore type='block' index='3'><format type='raw'/><source dev='/dev/x'/><backingStore/></backingStore>
      </backingStore>
      <target dev='vda' bus='virtio'/><serial>S1</serial>
    </disk>
    <disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdaa' bus='virtio'/><boot order='1'/></disk>
    <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='xvda' bus='xen'/><shareable/></disk>
    <interface type='network'><mac address='52:54:00:AB:CD:EF'/><source network='default'/><model type='virtio'/></interface>
    <interface type='direct'><mac address='52:54:00:00:00:01'/><source dev='eno1' mode='bridge'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
  </devices>
</domain>";

#[test]
fn reads_a_running_domain() {
    let domain = DomainXml::parse(RUNNING).unwrap();
    assert_eq!(domain.name, "web & mail");
    assert_eq!(domain.id, Some(7));
    assert_eq!(domain.owner.as_deref(), Some("u-1"));
    let hardware = &domain.hardware;
    assert_eq!(hardware.firmware, Firmware::Uefi { secure_boot: true });
    assert_eq!((hardware.vcpus, hardware.memory_bytes), (2, 2 << 30));
    assert_eq!(hardware.cpu_model.as_deref(), Some("host-passthrough"));
    assert_eq!(hardware.machine.as_deref(), Some("pc-q35-9.2"));
    assert_eq!(hardware.accel, Some(Accel::Hardware));
    assert!(hardware.guest_agent);
    assert_eq!(hardware.nics[0].mac, "52:54:00:ab:cd:ef");
    assert_eq!(
        hardware.nics[0].attachment,
        NicAttachment::Network("default".to_owned())
    );
    assert_eq!(
        hardware.nics[1].attachment,
        NicAttachment::Other("direct on eno1".to_owned())
    );

    let order: Vec<_> = domain.disks.iter().map(|disk| disk.target.as_str()).collect();
    assert_eq!(order, ["vdaa", "sda", "vda", "vdb", "xvda"]);
    assert_eq!(domain.disks[0].source, SourceXml::Other("network (rbd)".to_owned()));
    assert_eq!(domain.disks[0].backing, None);
    assert_eq!(
        (domain.disks[1].device, &domain.disks[1].source),
        (DeviceKind::Cdrom, &SourceXml::Empty)
    );
    let chain = domain.disks[2].backing.as_ref().unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[0].source, SourceXml::File("/d/mid".to_owned()));
    assert_eq!(chain[1].source, SourceXml::Block("/dev/x".to_owned()));
    assert_eq!(domain.disks[3].backing, Some(Vec::new()));
    assert!(domain.disks[4].bus.is_none() && domain.disks[4].shareable);
    assert!(domain.disks[4].to_disk(ImageFormat::Raw, 1).is_none());
}

#[test]
fn the_mark_counts_only_in_our_namespace() {
    let foreign = RUNNING.replace("https://vmferry.dev/ns/1", "https://example.org/1");
    assert_eq!(DomainXml::parse(&foreign).unwrap().owner, None);
}

#[test]
fn names_what_a_description_lacks() {
    for (part, name) in [
        ("<name>web &amp; mail</name>", "<name>"),
        ("2097152", "<memory>"),
        ("arch='x86_64' ", "<type arch>"),
    ] {
        let text = RUNNING.replace(part, "");
        let message = DomainXml::parse(&text).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
    assert!(DomainXml::parse("not xml").is_err());
}

#[test]
fn reads_units_and_old_firmware() {
    for (unit, bytes) in [
        ("unit='b'", 1),
        ("unit='MB'", 1_000_000),
        ("unit='GiB'", 1 << 30),
        ("", 1024),
    ] {
        let text = RUNNING.replace("unit='KiB'>2097152", &format!("{unit}>3"));
        assert_eq!(DomainXml::parse(&text).unwrap().hardware.memory_bytes, 3 * bytes);
    }
    let keyless = RUNNING.replace(
        "enabled='yes' name='enrolled-keys'",
        "enabled='no' name='enrolled-keys'",
    );
    assert_eq!(
        DomainXml::parse(&keyless).unwrap().hardware.firmware,
        Firmware::Uefi { secure_boot: false }
    );
    let old = RUNNING.replace(" firmware='efi'", "").replace("type='pflash' ", "");
    let plain = old
        .replace("secure='yes' ", "")
        .replace("<feature enabled='yes' name='secure-boot'/>", "");
    assert_eq!(
        DomainXml::parse(&plain).unwrap().hardware.firmware,
        Firmware::Uefi { secure_boot: false }
    );
    let rom = plain.replace("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/seabios/bios.bin");
    assert_eq!(DomainXml::parse(&rom).unwrap().hardware.firmware, Firmware::Bios);
}

fn hardware(disks: Vec<Disk>) -> Hardware {
    Hardware {
        firmware: Firmware::Bios,
        machine: Some("pc-i440fx-noble".to_owned()),
        arch: "x86_64".to_owned(),
        accel: None,
        vcpus: 1,
        cpu_model: None,
        memory_bytes: 1 << 30,
        disks,
        nics: Vec::new(),
        guest_agent: false,
        guest_os: None,
    }
}

const CAPABILITIES: &str = "<capabilities>
  <guest><os_type>hvm</os_type><arch name='x86_64'>
    <machine maxCpus='255'>pc-i440fx-10.0</machine><machine canonical='pc-i440fx-10.0' maxCpus='255'>pc</machine>
    <machine>pc-q35-10.0</machine><machine canonical='pc-q35-10.0'>q35</machine>
    <domain type='qemu'/><domain type='kvm'><machine>special</machine></domain>
  </arch></guest></capabilities>";

#[test]
fn a_vm_is_put_on_the_nearest_machine_that_the_host_has() {
    let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
    let place = |machine: Option<&str>| {
        let mut hardware = hardware(Vec::new());
        hardware.machine = machine.map(str::to_owned);
        capabilities.place(&hardware).unwrap().machine
    };
    assert_eq!(place(Some("pc-q35-10.0")).as_deref(), Some("pc-q35-10.0"));
    assert_eq!(place(Some("special")).as_deref(), Some("special"));
    assert_eq!(place(Some("pc-q35-rhel9.4.0")).as_deref(), Some("q35"));
    assert_eq!(place(Some("pc-i440fx-noble")).as_deref(), Some("pc"));
    assert_eq!(place(Some("pc-1.2")).as_deref(), Some("pc"));
    assert_eq!(place(Some("virt-9.0")), None);
    assert_eq!(place(None), None);
}

#[test]
fn the_accelerator_is_the_sources_where_the_host_has_it() {
    let kvm = Capabilities::parse(CAPABILITIES).unwrap();
    let none = Capabilities::parse(&CAPABILITIES.replace("type='kvm'", "type='xen'")).unwrap();
    let place = |capabilities: &Capabilities, accel| {
        let mut hardware = hardware(Vec::new());
        hardware.accel = accel;
        capabilities.place(&hardware).unwrap().domain_type
    };
    assert_eq!(place(&kvm, Some(Accel::Emulation)), "qemu");
    assert_eq!(place(&kvm, Some(Accel::Hardware)), "kvm");
    assert_eq!(place(&kvm, None), "kvm");
    assert_eq!(place(&none, Some(Accel::Hardware)), "qemu");
    let mut foreign = hardware(Vec::new());
    foreign.arch = "s390x".to_owned();
    assert_eq!(kvm.place(&foreign).unwrap_err().kind(), crate::Kind::Unsupported);
}

fn disk(name: &str, bus: DiskBus, boot_order: Option<u32>) -> Disk {
    Disk {
        name: name.to_owned(),
        bus,
        controller: None,
        format: ImageFormat::Raw,
        capacity: 0,
        serial: None,
        boot_order,
    }
}

fn rendered(hardware: &Hardware) -> DomainXml {
    let volumes: Vec<_> = (0..hardware.disks.len())
        .map(|n| (format!("/p/{n}"), ImageFormat::Qcow2))
        .collect();
    let platform = Platform {
        domain_type: "qemu",
        machine: None,
    };
    let text = render("n", hardware, &volumes, &platform, &Owner::new("u")).unwrap();
    // What libvirt adds by itself.
    DomainXml::parse(&text.replace("</metadata>", "</metadata><uuid>0</uuid>")).unwrap()
}

#[test]
fn targets_keep_their_names_where_they_can() {
    let disks = vec![
        disk("vdb", DiskBus::Virtio, Some(3)),
        disk("vda", DiskBus::Virtio, None),
        disk("vda", DiskBus::Virtio, None),
        disk("scsi0:0", DiskBus::Scsi, Some(2)),
        disk("sda", DiskBus::Sata, None),
        disk("../x", DiskBus::Ide, None),
    ];
    let domain = rendered(&hardware(disks));
    let got: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| (disk.target.as_str(), disk.boot_order))
        .collect();
    assert_eq!(
        got,
        [
            ("sdb", Some(1)),
            ("vdb", Some(2)),
            ("vda", None),
            ("vdc", None),
            ("sda", None),
            ("hda", None)
        ]
    );
}

#[test]
fn the_first_disk_boots_where_no_order_says_otherwise() {
    let many: Vec<_> = (0..30).map(|_| disk("", DiskBus::Virtio, None)).collect();
    let domain = rendered(&hardware(many));
    assert_eq!(
        (domain.disks[0].target.as_str(), domain.disks[0].boot_order),
        ("vda", Some(1))
    );
    assert!(domain.disks[1..].iter().all(|disk| disk.boot_order.is_none()));
    assert_eq!(domain.disks[29].target, "vdad");
}

#[test]
fn a_disk_keeps_the_controller_that_its_guest_has_a_driver_for() {
    use crate::ScsiController::{Lsi53c1030, LsiSas1068, Pvscsi, Virtio};
    let on = |name: &str, controller| Disk {
        controller,
        ..disk(name, DiskBus::Scsi, None)
    };
    let mut disks = vec![
        on("scsi0:0", Some(Pvscsi)),
        on("scsi1:0", Some(LsiSas1068)),
        on("scsi2:0", Some(Lsi53c1030)),
    ];
    disks.extend((1..9).map(|number| on(&format!("scsi0:{number}"), Some(Pvscsi))));
    disks.push(on("sdz", None));
    let domain = rendered(&hardware(disks));
    let found: Vec<_> = domain.disks.iter().map(|disk| (disk.bus, disk.controller)).collect();
    let scsi = |model| (Some(DiskBus::Scsi), Some(model));
    assert_eq!(found.iter().filter(|place| **place == scsi(Pvscsi)).count(), 9);
    assert_eq!(found.iter().filter(|place| **place == scsi(LsiSas1068)).count(), 1);
    assert_eq!(found.iter().filter(|place| **place == scsi(Virtio)).count(), 1);
    assert_eq!(
        found
            .iter()
            .filter(|place| **place == (Some(DiskBus::Sata), None))
            .count(),
        1
    );
    let plain = rendered(&hardware(vec![on("sda", None), on("sdb", Some(Virtio))]));
    assert!(plain.disks.iter().all(|disk| disk.controller == Some(Virtio)));
}

/// Names as nobody should choose them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,12}",
        "[<>&'\"\\]!\\[/ a-c]{1,12}".prop_filter("blank", |s| s.trim() == s)
    ]
}

fn attachment() -> impl Strategy<Value = NicAttachment> {
    prop_oneof![
        name().prop_map(NicAttachment::Network),
        name().prop_map(NicAttachment::Bridge),
        Just(NicAttachment::User),
    ]
}

fn nics() -> impl Strategy<Value = Vec<Nic>> {
    let nic = (any::<[u8; 6]>(), prop::option::of(name()), attachment());
    prop::collection::vec(nic, 0..4).prop_map(|nics| {
        let named = nics.into_iter().enumerate();
        named
            .map(|(index, (mac, model, attachment))| Nic {
                name: format!("eth{index}"),
                mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
                model,
                attachment,
            })
            .collect()
    })
}

fn disks() -> impl Strategy<Value = Vec<(Disk, String, ImageFormat)>> {
    let bus = prop::sample::select(vec![
        DiskBus::Virtio,
        DiskBus::Scsi,
        DiskBus::Sata,
        DiskBus::Ide,
        DiskBus::Usb,
    ]);
    let format = prop::sample::select(vec![ImageFormat::Raw, ImageFormat::Qcow2]);
    let one = (name(), bus, prop::option::of(name()), name(), format);
    prop::collection::vec(one, 0..6).prop_map(|disks| {
        let disks = disks.into_iter();
        disks
            .map(|(name, bus, serial, path, format)| {
                let mut disk = disk(&name, bus, None);
                disk.serial = serial;
                (disk, path, format)
            })
            .collect()
    })
}

prop_compose! {
    fn any_hardware()(
        firmware in prop::sample::select(vec![
            Firmware::Bios, Firmware::Uefi { secure_boot: true }, Firmware::Uefi { secure_boot: false },
        ]),
        machine in prop::option::of(name()),
        arch in name(),
        accel in prop::sample::select(vec![Accel::Hardware, Accel::Emulation]),
        (vcpus, memory_bytes) in (1u32.., any::<u64>()),
        cpu_model in prop::option::of(prop_oneof![name(), Just("host-model".to_owned())]),
        nics in nics(),
        guest_agent in any::<bool>(),
    ) -> Hardware {
        let accel = Some(accel);
        Hardware { firmware, machine, arch, accel, vcpus, cpu_model, memory_bytes, disks: Vec::new(), nics, guest_agent, guest_os: None }
    }
}

proptest! {
    #[test]
    fn what_is_rendered_is_read_back(vm in name(), uid in name(), hardware in any_hardware(), disks in disks()) {
        let mut whole = hardware.clone();
        whole.disks = disks.iter().map(|(disk, ..)| disk.clone()).collect();
        let volumes: Vec<_> = disks.iter().map(|(_, path, format)| (path.clone(), *format)).collect();
        let domain_type = if hardware.accel == Some(Accel::Hardware) { "kvm" } else { "qemu" };
        let platform = Platform { domain_type, machine: hardware.machine.clone() };
        let text = render(&vm, &whole, &volumes, &platform, &Owner::new(&uid)).unwrap();
        let read = DomainXml::parse(&text.replace("</metadata>", "</metadata><uuid>0</uuid>")).unwrap();

        prop_assert_eq!(read.name, vm);
        prop_assert_eq!(read.owner, Some(uid));
        prop_assert_eq!(read.hardware, hardware);
        let mut expected: Vec<_> = disks
            .iter()
            .map(|(disk, path, format)| (path.clone(), format.to_string(), disk.bus, disk.serial.clone()))
            .collect();
        let mut got: Vec<_> = read
            .disks
            .iter()
            .map(|disk| {
                let SourceXml::File(path) = &disk.source else { panic!("{:?}", disk.source) };
                (path.clone(), disk.format.clone().unwrap(), disk.bus.unwrap(), disk.serial.clone())
            })
            .collect();
        expected.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        got.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        prop_assert_eq!(got, expected);
        let targets: std::collections::HashSet<_> = read.disks.iter().map(|disk| &disk.target).collect();
        prop_assert_eq!(targets.len(), disks.len());
    }
}
