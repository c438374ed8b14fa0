//! The libvirt provider as a source, against real hosts.
#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod connect;
mod delete;
mod offline;
mod running;

use std::os::unix::fs::FileExt;
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use tempfile::{NamedTempFile, TempDir};
use vmferry_block::Buf;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::libvirt::{Config, Libvirt};
use vmferry_provider::{DiskSource, Error, Hypervisor, Owner, Vm, VmSelector};
use vmferry_testkit::Host;

const UID: &str = "0f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273";

fn owner() -> Owner {
    Owner::new(UID)
}

fn named(name: &str) -> VmSelector {
    VmSelector {
        id: None,
        name: name.to_owned(),
    }
}

/// How a host is reached, and the runtime folder, which must be empty whenever nothing is being connected.
struct Way {
    config: Config,
    runtime: TempDir,
}

impl Way {
    fn to(endpoint: String, credentials: Credentials) -> Self {
        let runtime = TempDir::new().unwrap();
        let config = Config {
            endpoint,
            credentials,
            runtime_dir: runtime.path().join("run"),
            default_storage: None,
        };
        Self { config, runtime }
    }

    fn unix(host: &Host) -> Self {
        Self::to(host.uri(), Credentials::default())
    }

    fn tcp(host: &Host) -> Self {
        Self::to(host.tcp_uri(), Credentials::default())
    }

    fn ssh(host: &Host) -> Self {
        let ssh = host.ssh();
        let credentials = Credentials {
            ssh_private_key: Some(SecretString::from(ssh.private_key())),
            known_hosts: Some(ssh.known_hosts()),
            ..Credentials::default()
        };
        Self::to(host.ssh_uri(), credentials)
    }

    async fn try_connect(&self) -> Result<Libvirt, Error> {
        let answer = Libvirt::connect(self.config.clone()).await;
        self.assert_clean();
        answer
    }

    async fn connect(&self) -> Libvirt {
        self.try_connect().await.unwrap()
    }

    fn assert_clean(&self) {
        let run = self.runtime.path().join("run");
        let left: Vec<_> = std::fs::read_dir(run).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in the runtime folder: {left:?}");
    }
}

async fn find(libvirt: &Libvirt, name: &str) -> Vm {
    libvirt.find_vm(&named(name)).await.unwrap()
}

/// Copies a disk's data into a raw image, many reads at once, without finishing it.
async fn copy(source: &dyn DiskSource) -> NamedTempFile {
    try_copy(source).await.unwrap()
}

async fn try_copy(source: &dyn DiskSource) -> Result<NamedTempFile, Error> {
    const PIECE: u64 = 256 << 10;
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(source.capacity()).unwrap();
    let map = source.map().await?;
    let pieces = map.extents().iter().flat_map(|extent| {
        let end = extent.end();
        (extent.start..end)
            .step_by(PIECE as usize)
            .map(move |at| (at, PIECE.min(end - at)))
    });
    let pieces: Vec<(u64, u64)> = pieces.collect();
    stream::iter(pieces)
        .map(|(at, len)| async move { source.read(at, Buf::alone(len as usize)).await.map(|buf| (at, buf)) })
        .buffer_unordered(8)
        .try_for_each(|(at, buf)| {
            file.as_file().write_all_at(&buf, at).unwrap();
            async { Ok(()) }
        })
        .await?;
    Ok(file)
}

/// Converts an image to raw with `qemu-img`, for comparing.
fn raw(path: &Path, format: vmferry_testkit::Format) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    vmferry_testkit::image::convert(path, format, file.path(), vmferry_testkit::Format::Raw);
    file
}

fn assert_same(copy: &NamedTempFile, image: &Path, format: vmferry_testkit::Format) {
    let wanted = std::fs::read(raw(image, format).path()).unwrap();
    assert!(
        std::fs::read(copy.path()).unwrap() == wanted,
        "the copy is not the image {}",
        image.display()
    );
}
