//! A pool without room. Mounts a small file system, so it needs root, as the kit's system hosts do.

use std::process::Command;

use tempfile::TempDir;
use vmferry_block::Buf;
use vmferry_testkit::{Host, MIB, run};

use super::{connect, owner, volume_spec};
use crate::libvirt::target::name::Place;
use crate::libvirt::target::sink;
use crate::{DiskSink, Error, ImageFormat, Kind, TargetHost, TargetPlan};

/// A small file system of its own.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn new(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={mib}m,mode=0777");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path()));
        Self { dir }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.dir.path()));
    }
}

/// A host with a pool `small` there. Started after the file system was mounted, its namespace has it, too.
fn host_with(disk: &SmallDisk) -> Host {
    let host = Host::session("full");
    let target = disk.dir.path().to_str().unwrap();
    // Others may get into the folder: the host is another user.
    run(Command::new("chmod").args(["0777", target]));
    host.virsh(["pool-define-as", "small", "dir", "--target", target]);
    host.virsh(["pool-start", "small"]);
    host
}

fn plan() -> TargetPlan {
    TargetPlan {
        name: "web".to_owned(),
        storage: Some("small".to_owned()),
        disks: Vec::new(),
        attachments: Vec::new(),
    }
}

#[tokio::test]
async fn a_full_pool_is_refused_beforehand() {
    let disk = SmallDisk::new(32);
    let host = host_with(&disk);
    let connected = connect(host.uri()).await;
    let error = connected.libvirt.check_target(&plan(), &owner()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace);
    let message = error.to_string();
    for part in ["\"small\"", "MiB", "spec.targetStorageHint"] {
        assert!(message.contains(part), "{message}");
    }
}

async fn overfill(sink: &dyn DiskSink) -> Error {
    for step in 0..128 {
        if let Err(error) = sink.write(step * MIB, Buf::copy_of(&vec![9; 1 << 20])).await {
            return error;
        }
    }
    sink.finish(128 * MIB).await.unwrap_err()
}

#[tokio::test]
async fn a_pool_that_fills_up_is_an_error_that_says_so() {
    let disk = SmallDisk::new(72);
    let host = host_with(&disk);
    let connected = connect(host.uri()).await;
    let libvirt = &connected.libvirt;
    libvirt.check_target(&plan(), &owner()).await.unwrap();
    let mut spec = volume_spec("web", 0, ImageFormat::Raw, 128 * MIB);
    spec.storage = Some("small".to_owned());
    // The stream first: the daemon of libvirt 11.3 would not survive it if it were sent too much.
    for through_stream in [true, false] {
        let made = libvirt.create_volume(&spec, &owner()).await.unwrap();
        let sink = if through_stream {
            let place = Place::owned(&made.id, &owner()).unwrap();
            sink::stream(libvirt, place, 0, 128 * MIB).await.unwrap()
        } else {
            libvirt.open_sink(&made.id, &owner(), 128 * MIB, None).await.unwrap()
        };
        assert_eq!(sink.concurrency() == 1, through_stream);
        let error = overfill(&*sink).await;
        assert_eq!(error.kind(), Kind::NoSpace, "{error}");
        assert!(error.to_string().contains("spec.targetStorageHint"), "{error}");
        drop(sink);
        let written = host.virsh(["vol-info", "--pool", "small", "web-disk0-5f0c9d2e77aa.raw"]);
        assert!(written.contains("MiB"), "{written}");
        libvirt.delete_volume(&spec, &owner()).await.unwrap();
    }
}
