//! A VM that is shut off.

use std::path::Path;

use vmferry_provider::{Kind, SourceHost};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, MIB, World, image};

use crate::{Way, assert_same, copy, find, named, owner};

fn chain() -> DiskSpec {
    DiskSpec::qcow2(24 * MIB)
        .noise(2 * MIB)
        .backing(&[Format::Raw, Format::Qcow2])
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_and_raw_disks_are_read_here_and_from_afar() {
    let host = Host::system("a");
    let spec = GuestSpec::micro("g1")
        .disk(chain())
        .disk(DiskSpec::raw(24 * MIB).noise(5 * MIB));
    let guest = host.define(&spec);
    let before = World::of(&[&host], &[]);
    for way in [Way::unix(&host), Way::tcp(&host), Way::ssh(&host)] {
        let libvirt = way.connect().await;
        let vm = find(&libvirt, "g1").await;
        libvirt.check_source(&vm).await.unwrap();
        let frozen = libvirt.freeze(&vm, &owner(), true).await.unwrap();
        assert!(frozen.id.0.starts_with("offline-"), "{frozen:?}");
        assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap().unwrap().id, frozen.id);
        for (name, (path, format)) in ["vda", "vdb"].iter().zip(&guest.disks) {
            let disk = libvirt
                .open_disk(&vm, &frozen.id, name)
                .await
                .unwrap()
                .into_random()
                .unwrap();
            assert_eq!(disk.capacity(), 24 * MIB);
            assert_same(&copy(&*disk).await, path, *format);
            disk.finish().await.unwrap();
        }
        libvirt.release(&named("g1"), &owner(), false).await.unwrap();
    }
    before.assert_unchanged(&[&host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_and_a_vm_that_starts_are_another_state() {
    let host = Host::session("a");
    let guest = host.define(&GuestSpec::micro("g1").disk(chain()));
    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap().id;
    let disk = libvirt
        .open_disk(&vm, &frozen, "vda")
        .await
        .unwrap()
        .into_random()
        .unwrap();
    let base = host.pool_dir().join("g1-0-base0.raw");
    image::write_pattern(&base, Format::Raw, 0, 512, 9);
    let error = disk.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    let error = libvirt.open_disk(&vm, &frozen, "vda").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    let anew = libvirt.freeze(&vm, &owner(), false).await.unwrap().id;
    assert_ne!(anew, frozen);
    let disk = libvirt
        .open_disk(&vm, &anew, "vda")
        .await
        .unwrap()
        .into_random()
        .unwrap();
    host.virsh(["start", &guest.name]);
    let error = disk.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert!(error.to_string().contains("started"), "{error}");
    assert_eq!(libvirt.frozen(&vm, &owner()).await.unwrap(), None);
}

/// A device of this machine that has a file as its disk; detached when it is dropped.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Self {
        let mut losetup = std::process::Command::new("losetup");
        Self(
            vmferry_testkit::run(losetup.args(["--find", "--show"]).arg(file))
                .trim()
                .to_owned(),
        )
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["--detach", &self.0])
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_watched_while_it_is_read() {
    let host = Host::system("a");
    let guest = host.define(&GuestSpec::small("g1"));
    let raw = host.dir().join("device.raw");
    image::convert(&guest.disks[0].0, guest.disks[0].1, &raw, Format::Raw);
    let device = Loop::attach(&raw);
    let as_file = format!("<source file='{}'/>", guest.disks[0].0.display());
    let xml = host.virsh(["dumpxml", "g1"]);
    assert!(xml.contains(&as_file) && xml.contains("type='qcow2'"), "{xml}");
    let xml = xml
        .replace(&as_file, &format!("<source dev='{}'/>", device.0))
        .replace("type='file' device='disk'", "type='block' device='disk'")
        .replace("type='qcow2'", "type='raw'");
    let path = host.dir().join("g1.xml");
    std::fs::write(&path, xml).unwrap();
    host.virsh(["define", &path.display().to_string()]);

    let libvirt = Way::unix(&host).connect().await;
    let vm = find(&libvirt, "g1").await;
    let frozen = libvirt.freeze(&vm, &owner(), false).await.unwrap();
    assert!(frozen.detail.contains("keep it so"), "{frozen:?}");
    let open = async |id| {
        libvirt
            .open_disk(&vm, id, "vda")
            .await
            .map(|disk| disk.into_random().unwrap())
    };
    let disk = open(&frozen.id).await.unwrap();
    assert_same(&copy(&*disk).await, &raw, Format::Raw);
    disk.finish().await.unwrap();

    // It shows nothing of it that its VM ran. That it runs is seen in time, and so is how it was stopped.
    host.virsh(["start", "g1"]);
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let error = crate::try_copy(&*disk).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    host.virsh(["destroy", "g1"]);
    let error = disk.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::FrozenStateGone, "{error}");
    assert_ne!(libvirt.freeze(&vm, &owner(), false).await.unwrap().id, frozen.id);
}

/// A guest whose only disk is an overlay with this backing file, as the header has it.
fn overlay(host: &Host, name: &str, backing: &str, format: Option<&str>) {
    let path = host.pool_dir().join(format!("{name}.qcow2"));
    let mut command = std::process::Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-u", "-b", backing]);
    command.args(["-F", format.unwrap_or("raw")]);
    vmferry_testkit::run(command.arg(&path).arg("16M"));
    if format.is_none() {
        unset_format(&path);
    }
    host.give(&path);
    host.define(&GuestSpec::micro(name).disk(DiskSpec::existing(path, Format::Qcow2)));
}

/// qemu-img always records a format: turn the header extension into one that nobody knows.
fn unset_format(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes
        .windows(4)
        .position(|four| four == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    bytes[at..at + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_backing_files_are_refused() {
    let host = Host::system("a");
    let pool = host.pool_dir();
    let outside = host.dir().join("outside.raw");
    image::create(&outside, Format::Raw, MIB);
    std::os::unix::fs::symlink(&outside, pool.join("link.raw")).unwrap();
    std::fs::create_dir(pool.join("sub")).unwrap();
    image::create(&pool.join("sub/x.raw"), Format::Raw, MIB);
    image::create(&pool.join("good.raw"), Format::Raw, MIB);
    let outside = outside.display().to_string();
    let cases: &[(&str, &str, Option<&str>, Kind)] = &[
        ("absolute", &outside, Some("raw"), Kind::Hostile),
        ("shadow", "/etc/shadow", Some("raw"), Kind::Hostile),
        ("upwards", "../outside.raw", Some("raw"), Kind::Hostile),
        ("below", "sub/x.raw", Some("raw"), Kind::Hostile),
        (
            "json",
            "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
            Some("raw"),
            Kind::Hostile,
        ),
        ("nbd", "nbd://127.0.0.1:1/x", Some("raw"), Kind::Hostile),
        ("protocol", "file:/etc/shadow", Some("raw"), Kind::Hostile),
        ("device", "/dev/zero", Some("raw"), Kind::Hostile),
        ("loop", "loop.qcow2", Some("qcow2"), Kind::Hostile),
        ("noformat", "good.raw", None, Kind::Hostile),
        ("vmdk", "good.raw", Some("vmdk"), Kind::Hostile),
        ("missing", "nothing.raw", Some("raw"), Kind::NotFound),
    ];
    for (name, backing, format, _) in cases {
        overlay(&host, name, backing, *format);
    }
    overlay(&host, "link", "link.raw", Some("raw"));
    overlay(&host, "fine", "good.raw", Some("raw"));
    let before = World::of(&[&host], &[]);
    for way in [Way::unix(&host), Way::tcp(&host)] {
        let libvirt = way.connect().await;
        for (name, backing, _, kind) in cases {
            let vm = find(&libvirt, name).await;
            for error in [
                libvirt.check_source(&vm).await.unwrap_err(),
                libvirt.freeze(&vm, &owner(), false).await.unwrap_err(),
            ] {
                let shown = error.to_string();
                assert!(
                    error.kind() == *kind || (*name == "missing" && error.kind() == Kind::Unsupported),
                    "{name}: {error:?}"
                );
                assert!(
                    shown.contains("disk \"vda\"") && shown.contains(&format!("{name:?}")),
                    "{shown}"
                );
                let last = backing.rsplit('/').next().unwrap();
                assert!(
                    shown.contains(last.trim_end_matches("\"}")) && shown.contains("; "),
                    "{shown}"
                );
            }
        }
        libvirt.check_source(&find(&libvirt, "fine").await).await.unwrap();
    }
    let libvirt = Way::unix(&host).connect().await;
    let error = libvirt.check_source(&find(&libvirt, "link").await).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Hostile, "{error}");
    assert!(error.to_string().contains("link.raw"), "{error}");
    before.assert_unchanged(&[&host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_cannot_be_moved_are_named() {
    let host = Host::session("a");
    let cases = [
        (
            "net",
            "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='x'><host name='127.0.0.1' port='1'/></source><target dev='vdb' bus='virtio'/></disk>",
            "network (nbd)",
        ),
        (
            "share",
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/tmp/x'/><target dev='vdb' bus='virtio'/><shareable/></disk>",
            "shareable",
        ),
        (
            "trans",
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/tmp/x'/><target dev='vdb' bus='virtio'/><transient/></disk>",
            "transient",
        ),
        (
            "vdi",
            "<disk type='file' device='disk'><driver name='qemu' type='vdi'/><source file='/tmp/x'/><target dev='vdb' bus='virtio'/></disk>",
            "vdi",
        ),
    ];
    let libvirt = Way::unix(&host).connect().await;
    for (name, xml, why) in cases {
        let mut spec = GuestSpec::small(name);
        spec.extra_devices = xml.to_owned();
        host.define(&spec);
        let error = vmferry_provider::Hypervisor::find_vm(&libvirt, &named(name))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        let shown = error.to_string();
        assert!(
            shown.contains(why) && shown.contains("disk \"vdb\"") && shown.contains(&format!("{name:?}")),
            "{shown}"
        );
    }
    let mut spec = GuestSpec::small("drives");
    spec.extra_devices = "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>".to_owned();
    let guest = host.define(&spec);
    let vm = find(&libvirt, "drives").await;
    assert_eq!(vm.hardware.disks.len(), 1);
    std::fs::remove_file(&guest.disks[0].0).unwrap();
    let error = libvirt.check_source(&vm).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let path = guest.disks[0].0.display().to_string();
    assert!(
        error.to_string().contains(&path) && error.to_string().contains("disk \"vda\""),
        "{error}"
    );
}
