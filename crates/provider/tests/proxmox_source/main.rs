//! The Proxmox VE source against a cluster with real nodes, real volumes and VMs that run.
#![cfg(feature = "proxmox")]
#![allow(clippy::unwrap_used, missing_docs)]

mod addresses;
mod changes;
mod clone;
mod faults;
mod offline;
mod refusals;
mod running;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use tempfile::NamedTempFile;
use vmferry_block::Buf;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::proxmox::{Config, Proxmox, Ssh};
use vmferry_provider::{
    DiskSource, Error, Firmware, FrozenId, Hardware, Owner, PowerState, SourceHost as _, Vm, VmId, VmSelector,
};
use vmferry_testkit::proxmox::{Options, Proxmox as Cluster, SeedDisk, SeedVm, Version};
use vmferry_testkit::{Format, MIB, image, micro};

const UID: &str = "0f3c1f2a-9b5e-4c9d-8b56-1f2d3c4b5a69";

fn owner() -> Owner {
    Owner::new(UID)
}

/// What a Provider would say of a cluster.
fn config(cluster: &Cluster) -> Config {
    Config {
        endpoint: cluster.url(),
        credentials: Credentials {
            token_id: Some(Cluster::TOKEN.0.to_owned()),
            token_secret: Some(SecretString::from(Cluster::TOKEN.1)),
            ssh_private_key: cluster
                .dir()
                .join("ssh")
                .exists()
                .then(|| SecretString::from(cluster.ssh_key())),
            known_hosts: Some(cluster.known_hosts()),
            ca: Some(cluster.ca().to_owned()),
            ..Credentials::default()
        },
        insecure: false,
        node: None,
        storage: None,
        import_storage: None,
        bridge: None,
        ssh: Ssh {
            port: cluster.ssh_port(),
            ..Ssh::default()
        },
        shared: None,
    }
}

async fn connect(cluster: &Cluster) -> Proxmox {
    Proxmox::connect(config(cluster)).await.unwrap()
}

/// A cluster with ssh.
fn cluster(version: Version) -> Cluster {
    Cluster::start(&Options::new(version).with_ssh())
}

/// An image with a boot sector, and noise from 8 MiB on.
fn boot_image(folder: &Path, marker: &str) -> PathBuf {
    let path = folder.join(format!("{marker}.raw"));
    let mut file = std::fs::File::create(&path).unwrap();
    let noise: Vec<u8> = (0..2 * MIB).map(|at| (at * 31 % 251) as u8).collect();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(8 * MIB)).unwrap();
    file.write_all(&noise).unwrap();
    file.set_len(16 * MIB).unwrap();
    micro::install(&file, marker);
    path
}

/// A VM with a qcow2 disk that boots and a raw one.
fn two_disks(cluster: &Cluster, id: u32, name: &str) -> SeedVm {
    let image = boot_image(cluster.dir(), name);
    let second = boot_image(cluster.dir(), &format!("{name}-2"));
    SeedVm::new(id, name)
        .disk(SeedDisk::new("scsi0", image, Format::Raw).stored_as(Format::Qcow2))
        .disk(SeedDisk::new("scsi1", second, Format::Raw))
}

/// The VM that was seeded, as the engine knows it.
fn vm(id: u32, name: &str) -> Vm {
    Vm {
        id: VmId(id.to_string()),
        name: name.to_owned(),
        power: PowerState::Off,
        hardware: Hardware {
            firmware: Firmware::Bios,
            machine: None,
            arch: "x86_64".to_owned(),
            accel: None,
            vcpus: 1,
            cpu_model: None,
            memory_bytes: 32 * MIB,
            disks: Vec::new(),
            nics: Vec::new(),
            guest_agent: false,
            guest_os: None,
        },
    }
}

fn selector(id: u32, name: &str) -> VmSelector {
    VmSelector {
        id: Some(id.to_string()),
        name: name.to_owned(),
    }
}

async fn open(source: &Proxmox, vm: &Vm, frozen: &FrozenId, disk: &str) -> std::sync::Arc<dyn DiskSource> {
    let input = source.open_disk(vm, frozen, disk).await.unwrap();
    input.into_random().unwrap()
}

/// Reads all of a disk by its map; what the map leaves out is zeros.
async fn copy(disk: &dyn DiskSource) -> Result<NamedTempFile, Error> {
    use std::os::unix::fs::FileExt as _;
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(disk.capacity()).unwrap();
    let map = disk.map().await?;
    for extent in map.extents() {
        let mut at = extent.start;
        while at < extent.end() {
            let len = (extent.end() - at).min(MIB);
            let buf = disk.read(at, Buf::alone(usize::try_from(len).unwrap())).await?;
            file.as_file().write_all_at(&buf, at).unwrap();
            at += len;
        }
    }
    Ok(file)
}

/// Asserts that nothing is there that was not before, and that every request was one of the official API.
#[track_caller]
fn assert_nothing_left(cluster: &Cluster, before: &[String]) {
    cluster.settle();
    let after = vmferry_testkit::poll(std::time::Duration::from_secs(10), || {
        let now = cluster.inventory();
        (now == before).then_some(())
    });
    assert!(after.is_some(), "before {before:#?}, now {:#?}", cluster.inventory());
    assert_eq!(cluster.violations(), [""; 0]);
}

fn assert_same(left: &Path, right: &Path, format: Format) {
    image::assert_same(left, Format::Raw, right, format);
}
