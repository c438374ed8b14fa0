//! Manifests and hardware for tests.

use std::collections::BTreeMap;

use serde_json::json;
use vmferry_api::names::ANNOTATION_BANDWIDTH_LIMIT;
use vmferry_api::{Key, NetworkHint, Provider, Secret, VMMigration, VirtualMachine};
use vmferry_provider::{Accel, Disk, DiskBus, Firmware, Hardware, ImageFormat, Nic, NicAttachment};

pub(crate) const NS: &str = "lab";

/// The UID of migration number `number`.
pub(crate) fn uid(number: u32) -> String {
    format!("{number:08x}-d9cb-469f-a165-70867728950e")
}

/// A migration of VM `web` to `web-copy`.
pub(crate) fn migration(name: &str, number: u32) -> VMMigration {
    let value = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VMMigration",
        "metadata": {"name": name, "namespace": NS, "uid": uid(number), "generation": 1},
        "spec": {
            "sourceName": "web",
            "sourceNamespace": NS,
            "targetProviderRef": {"name": "b"},
            "targetName": "web-copy",
            "storage": {"type": "nfs", "path": "/staging"}
        }
    });
    serde_json::from_value(value).unwrap()
}

/// Sets the annotation that limits the rate.
pub(crate) fn limit(migration: &mut VMMigration, rate: &str) {
    let annotations = migration.metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_BANDWIDTH_LIMIT.to_owned(), rate.to_owned());
}

/// Provider `name`.
pub(crate) fn provider(name: &str) -> Provider {
    let value = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "Provider",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"type": "libvirt", "endpoint": format!("qemu+ssh://{name}/system"), "credentialSecretRef": {"name": "login"}}
    });
    serde_json::from_value(value).unwrap()
}

/// VirtualMachine `name` at Provider `provider`.
pub(crate) fn vm(name: &str, provider: &str) -> VirtualMachine {
    let value = json!({
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"providerRef": {"name": provider}}
    });
    serde_json::from_value(value).unwrap()
}

/// Secret `name`.
pub(crate) fn secret(name: &str) -> (Key, Secret) {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.string_data = Some(BTreeMap::from([(
        "password".to_owned(),
        "hunter2-never-shown".to_owned(),
    )]));
    (Key::new(NS, name), secret)
}

/// Hardware with this many disks of 3 GiB and interfaces.
pub(crate) fn hardware(disks: usize, nics: usize) -> Hardware {
    let disk = |index: usize| Disk {
        name: format!("vd{}", char::from(b'a' + index as u8)),
        bus: DiskBus::Virtio,
        controller: None,
        format: ImageFormat::Qcow2,
        capacity: 3 << 30,
        serial: None,
        boot_order: None,
    };
    let nic = |index: usize| Nic {
        name: format!("eth{index}"),
        mac: format!("52:54:00:00:00:{index:02x}"),
        model: None,
        attachment: NicAttachment::Network("default".to_owned()),
    };
    Hardware {
        firmware: Firmware::Bios,
        machine: None,
        arch: "x86_64".to_owned(),
        accel: Some(Accel::Emulation),
        vcpus: 2,
        cpu_model: None,
        memory_bytes: 2 << 30,
        disks: (0..disks).map(disk).collect(),
        nics: (0..nics).map(nic).collect(),
        guest_agent: false,
        guest_os: None,
    }
}

/// Hints from interfaces to networks.
pub(crate) fn hints(hints: &[(&str, &str)]) -> Vec<NetworkHint> {
    let hint = |(name, network): &(&str, &str)| NetworkHint {
        name: (*name).to_owned(),
        network: Some((*network).to_owned()),
        bridge: None,
    };
    hints.iter().map(hint).collect()
}
