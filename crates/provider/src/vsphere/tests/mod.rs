//! The source against the simulator, and the client against recorded shapes of answers.

mod addresses;
mod connect;
mod faults;
mod find;
mod freeze;
mod read;
mod transcripts;

use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;
use tempfile::TempDir;
use vmferry_block::Buf;
use vmferry_testkit::vsphere::{DiskSeed, Options, VmSeed, Vsphere};
use vmferry_testkit::{Format, MIB, image, run};

use super::{Config, Placement, VSphere};
use crate::credentials::Credentials;
use crate::{DiskInput, DiskStream, Error, FrozenId, Owner, SourceHost, Vm, VmSelector};

const UID: &str = "0f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273";
const OTHER: &str = "1f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273";
const TAG: &str = "0f4b5c6d7e8f";

fn owner() -> Owner {
    Owner::new(UID)
}

fn named(name: &str) -> VmSelector {
    VmSelector {
        id: None,
        name: name.to_owned(),
    }
}

/// How somebody who may do everything connects.
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

/// Images for disks.
struct Images(TempDir);

impl Images {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A raw image of so many MiB, each of the first three with another value, the rest empty.
    fn disk(&self, name: &str, mib: u64, value: u8) -> PathBuf {
        let path = self.file(name);
        image::create(&path, Format::Raw, mib * MIB);
        for at in 0..3 {
            image::write_pattern(
                &path,
                Format::Raw,
                at * MIB + 512,
                MIB / 2,
                value + u8::try_from(at).unwrap(),
            );
        }
        path
    }
}

/// A VM with these disks, each on a controller of its kind.
fn seed(name: &str, disks: &[(&Path, &str)]) -> VmSeed {
    disks.iter().fold(VmSeed::new(name), |vm, (path, controller)| {
        vm.disk(DiskSeed::of(path, Format::Raw).on(controller))
    })
}

async fn open(vsphere: &VSphere, vm: &Vm, frozen: &FrozenId, disk: &str) -> Box<dyn DiskStream> {
    match vsphere.open_disk(vm, frozen, disk).await.unwrap() {
        DiskInput::Stream(stream) => stream,
        DiskInput::Random(_) => panic!("not a stream"),
    }
}

/// Reads a stream to its end.
async fn drain(stream: &mut dyn DiskStream) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    loop {
        let buf = stream.read(Buf::alone(100_000)).await?;
        all.extend_from_slice(&buf);
        if buf.len() < 100_000 {
            assert!(stream.read(Buf::alone(10)).await?.is_empty());
            return Ok(all);
        }
    }
}

/// Asserts that a stream that was read holds what an image does.
fn assert_holds(images: &Images, vmdk: &[u8], raw: &Path) {
    let file = images.file("read.vmdk");
    std::fs::write(&file, vmdk).unwrap();
    run(Command::new("qemu-img")
        .args(["compare", "-f", "vmdk", "-F", "raw"])
        .arg(&file)
        .arg(raw));
}

/// Asserts that nothing of ours is left, but for the session.
fn assert_clean(server: &Vsphere) {
    let state = server.state();
    assert!(state.leases.is_empty(), "{:?}", state.leases);
    for vm in &state.vms {
        assert!(vm.snapshots.is_empty(), "{vm:?}");
    }
}

/// An ESXi host whose leases have URLs with `*`.
fn esx() -> Vsphere {
    Vsphere::with(&Options {
        esx: true,
        star: true,
        ..Options::default()
    })
}
