//! The target side against real libvirt daemons.

mod checks;
mod domains;
mod full;
mod volumes;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;
use vmferry_block::Buf;
use vmferry_testkit::Host;

use crate::libvirt::{Config, Libvirt};
use crate::{DiskSink, Error, ImageFormat, Owner, VolumeSpec};

/// Bytes in one write of these tests.
const STEP: usize = 1 << 20;

/// A connection to a host, and the folder that it needs.
struct Connected {
    libvirt: Libvirt,
    _runtime: TempDir,
}

async fn connect(endpoint: String) -> Connected {
    let runtime = tempfile::tempdir().unwrap();
    let config = Config {
        endpoint,
        credentials: crate::credentials::Credentials::default(),
        runtime_dir: runtime.path().to_owned(),
        default_storage: None,
    };
    Connected {
        libvirt: Libvirt::connect(config).await.unwrap(),
        _runtime: runtime,
    }
}

/// A session-mode host and a connection to it.
async fn session() -> (Host, Connected) {
    let host = Host::session("target");
    let connected = connect(host.uri()).await;
    (host, connected)
}

fn owner() -> Owner {
    Owner::new("5f0c9d2e-77aa-4c11-9d3e-1234567890ab")
}

fn stranger() -> Owner {
    Owner::new("aaaaaaaa-77aa-4c11-9d3e-1234567890ab")
}

fn volume_spec(vm_name: &str, index: u32, format: ImageFormat, capacity: u64) -> VolumeSpec {
    VolumeSpec {
        index,
        vm_name: vm_name.to_owned(),
        storage: None,
        format,
        capacity,
    }
}

/// Writes a file to a sink as the mover does: in order, without the parts that are zeros. The sink is not finished.
async fn write(sink: &dyn DiskSink, file: &Path) -> Result<u64, Error> {
    let file = File::open(file).unwrap();
    let len = file.metadata().unwrap().len();
    let mut offset = 0;
    while offset < len {
        let mut buf = Buf::alone(STEP.min((len - offset) as usize));
        file.read_exact_at(&mut buf, offset).unwrap();
        let next = offset + buf.len() as u64;
        if buf.iter().any(|byte| *byte != 0) {
            sink.write(offset, buf).await?;
        }
        offset = next;
    }
    Ok(len)
}
