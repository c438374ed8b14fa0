//! The vSphere provider as a target, against the simulator that keeps the bytes of disks.
#![cfg(feature = "vsphere")]
#![allow(clippy::unwrap_used, missing_docs)]

mod faults;
mod halves;
mod import;
mod place;
mod takeover;
mod vm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use vmferry_block::Buf;
use vmferry_image::vmdk::stream::{Adapter, Packer, Writer};
use vmferry_provider::credentials::Credentials;
use vmferry_provider::vsphere::{Config, Placement, VSphere};
use vmferry_provider::{
    Disk, DiskBus, DiskSink, Error, Firmware, Hardware, ImageFormat, Nic, NicAttachment, Owner, TargetDisk, TargetHost,
    TargetPlan, VmSpec, VolumeId, VolumeSpec,
};
use vmferry_testkit::vsphere::{Options, State, Vsphere};
use vmferry_testkit::{Format, MIB, image, run};

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// How long a lease that was dropped may take to be called off.
const SOON: Duration = Duration::from_secs(20);

fn owner() -> Owner {
    Owner::new(UID)
}

/// vCenter, ESXi, and either with URLs of any host.
fn every_kind() -> [Options; 3] {
    let kind = |esx, star| Options {
        esx,
        star,
        ..Options::default()
    };
    [kind(false, false), kind(true, true), kind(true, false)]
}

fn config(server: &Vsphere) -> Config {
    Config {
        endpoint: server.endpoint(),
        credentials: Credentials {
            username: Some(server.user().to_owned()),
            password: Some(SecretString::from(server.password())),
            ca: Some(server.ca().to_owned()),
            ..Credentials::default()
        },
        insecure: false,
        placement: Placement::default(),
    }
}

async fn connect(server: &Vsphere) -> VSphere {
    VSphere::connect(config(server)).await.unwrap()
}

/// A disk with data at its begin, in its middle and at its end, as qcow2 and as the staged object.
struct Staged {
    folder: TempDir,
    object: Vec<u8>,
}

impl Staged {
    fn new(capacity: u64, value: u8) -> Self {
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("disk.qcow2");
        image::create(&image, Format::Qcow2, capacity);
        for (at, len) in [(0, MIB), (capacity / 2, 3 * MIB), (capacity - 4096, 4096)] {
            image::write_pattern(&image, Format::Qcow2, at, len, value);
        }
        // Not everything is to shrink to nothing.
        let noise = folder.path().join("noise");
        run(Command::new("sh")
            .args(["-c", "head -c 6M /dev/urandom >\"$0\""])
            .arg(&noise));
        let noise = noise.display();
        run(Command::new("qemu-io")
            .args(["-c", &format!("write -q -s {noise} 9M 6M")])
            .arg(&image));
        let raw = folder.path().join("disk.raw");
        image::convert(&image, Format::Qcow2, &raw, Format::Raw);
        let object = encode(&std::fs::read(&raw).unwrap());
        Self { folder, object }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.qcow2")
    }

    fn raw(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn len(&self) -> u64 {
        self.object.len() as u64
    }
}

fn encode(raw: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(raw.len() as u64, Adapter::LsiLogic).unwrap();
    let (mut packer, mut out) = (Packer::new(), Vec::new());
    writer.start(&mut out);
    for (at, chunk) in raw.chunks(MIB as usize).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            let packed = packer.pack(at as u64 * MIB, chunk);
            writer.append(&packed, &mut out).unwrap();
        }
    }
    writer.finish(&mut out).unwrap();
    out
}

fn volume(index: u32) -> VolumeSpec {
    VolumeSpec {
        index,
        vm_name: "web".to_owned(),
        storage: None,
        format: ImageFormat::Vmdk,
        capacity: 96 * MIB,
    }
}

/// Writes up to `end` in pieces of odd sizes.
async fn write(sink: &dyn DiskSink, object: &[u8], end: usize) -> Result<(), Error> {
    let mut at = 0;
    for size in [100, 700, 65_536, 300_000].into_iter().cycle() {
        if at == end {
            return Ok(());
        }
        let piece = &object[at..end.min(at + size)];
        sink.write(at as u64, Buf::copy_of(piece)).await?;
        at += piece.len();
    }
    Ok(())
}

async fn open(host: &VSphere, id: &VolumeId, staged: &Staged) -> Result<Arc<dyn DiskSink>, Error> {
    host.open_sink(id, &owner(), staged.len(), None).await
}

/// Imports a disk into the volume of this index.
async fn import(host: &VSphere, index: u32, staged: &Staged) -> Result<VolumeId, Error> {
    let id = host.create_volume(&volume(index), &owner()).await?.id;
    let sink = open(host, &id, staged).await?;
    write(&*sink, &staged.object, staged.object.len()).await?;
    sink.finish(staged.len()).await?;
    Ok(id)
}

fn disk(name: &str, bus: DiskBus, capacity: u64) -> Disk {
    Disk {
        name: name.to_owned(),
        bus,
        controller: None,
        format: ImageFormat::Qcow2,
        capacity,
        serial: None,
        boot_order: None,
    }
}

fn hardware(disks: Vec<Disk>) -> Hardware {
    Hardware {
        firmware: Firmware::Uefi { secure_boot: true },
        machine: None,
        arch: "x86_64".to_owned(),
        accel: None,
        vcpus: 2,
        cpu_model: None,
        memory_bytes: 510 * MIB,
        disks,
        nics: vec![
            nic("52:54:00:00:00:01", Some("virtio")),
            nic("52:54:00:00:00:02", Some("e1000e")),
        ],
        guest_agent: true,
        guest_os: None,
    }
}

fn nic(mac: &str, model: Option<&str>) -> Nic {
    Nic {
        name: "eth0".to_owned(),
        mac: mac.to_owned(),
        model: model.map(str::to_owned),
        attachment: NicAttachment::Network("VM Network".to_owned()),
    }
}

fn spec(disks: Vec<Disk>, volumes: &[VolumeId]) -> VmSpec {
    let target = |id: &VolumeId| TargetDisk {
        volume: id.clone(),
        format: ImageFormat::Vmdk,
    };
    VmSpec {
        name: "web".to_owned(),
        hardware: hardware(disks),
        disks: volumes.iter().map(target).collect(),
    }
}

fn plan(storage: Option<&str>) -> TargetPlan {
    TargetPlan {
        name: "web".to_owned(),
        storage: storage.map(str::to_owned),
        disks: vec![VolumeSpec {
            storage: storage.map(str::to_owned),
            ..volume(0)
        }],
        attachments: vec![NicAttachment::Network("VM Network".to_owned())],
    }
}

#[track_caller]
fn assert_nothing(state: &State) {
    assert_eq!(
        (&state.vms[..], &state.leases[..], &state.files[..]),
        (&[][..], &[][..], &[][..])
    );
}

/// Waits until what is called off in the background is gone.
#[track_caller]
fn await_nothing(server: &Vsphere) {
    vmferry_testkit::wait_for("an import that was dropped to be gone", SOON, || {
        server.state().vms.is_empty().then_some(())
    });
    assert_nothing(&server.state());
}

fn assert_content(server: &Vsphere, vm: &str, disk: usize, image: &Path) {
    let state = server.state();
    state.vm(vm).unwrap().disks[disk].assert_same(image, Format::Qcow2);
}
