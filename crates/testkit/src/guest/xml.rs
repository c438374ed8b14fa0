//! The libvirt XML of a guest. Emulated always: `/dev/kvm` may exist and still not run a guest.

use std::fmt::Write as _;
use std::path::Path;

use crate::guest::spec::{Bus, GuestSpec, NicSpec};

/// The domain, its disks at `paths`.
pub(super) fn domain(spec: &GuestSpec, paths: &[impl AsRef<Path>]) -> String {
    let machine = if spec.disks.iter().any(|disk| disk.bus == Bus::Sata) {
        "q35"
    } else {
        "pc"
    };
    let mut devices = String::new();
    for (index, (disk, path)) in spec.disks.iter().zip(paths).enumerate() {
        let _ = write!(
            devices,
            "<disk type='file' device='disk'><driver name='qemu' type='{}'/><source file='{}'/>\
             <target dev='{}' bus='{}'/><boot order='{}'/></disk>",
            disk.format.name(),
            path.as_ref().display(),
            disk.bus.target(index),
            disk.bus.name(),
            index + 1,
        );
    }
    if spec.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        devices.push_str("<controller type='scsi' model='virtio-scsi'/>");
    }
    spec.nics.iter().for_each(|nic| devices.push_str(&interface(nic)));
    devices.push_str(&spec.extra_devices);
    format!(
        "<domain type='qemu'><name>{}</name><memory unit='MiB'>{}</memory><vcpu>{}</vcpu>\
         <os><type arch='x86_64' machine='{machine}'>hvm</type></os><features><acpi/><apic/></features>\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\
         <devices><serial type='pty'/><console type='pty'/>{devices}\
         <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
        spec.name, spec.memory_mib, spec.vcpus,
    )
}

fn interface(nic: &NicSpec) -> String {
    let (kind, source) = match &nic.network {
        Some(network) => ("network", format!("<source network='{network}'/>")),
        None => ("user", String::new()),
    };
    format!(
        "<interface type='{kind}'>{source}<mac address='{}'/><model type='{}'/></interface>",
        nic.mac, nic.model
    )
}
