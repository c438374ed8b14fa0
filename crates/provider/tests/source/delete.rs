//! Deleting a VM that was moved.

use vmferry_provider::{Kind, SourceHost};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, MIB, World};

use crate::{Way, named};

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_goes_with_its_disks_and_nothing_else() {
    let host = Host::system("a");
    for way in [Way::unix(&host), Way::ssh(&host)] {
        let before = World::of(&[&host], &[]);
        let guest = host.boot(&GuestSpec::small("g1").disk(DiskSpec::raw(16 * MIB)));
        let libvirt = way.connect().await;
        libvirt.delete_source(&named("g1")).await.unwrap();
        assert!(guest.disks.iter().all(|(path, _)| !path.exists()));
        libvirt.delete_source(&named("g1")).await.unwrap();
        drop(libvirt);
        before.assert_unchanged(&[&host], &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backing_files_stay_and_what_others_use_is_refused() {
    let host = Host::session("a");
    let chain = DiskSpec::qcow2(16 * MIB).backing(&[Format::Raw]);
    let top = host.define(&GuestSpec::micro("g1").disk(chain)).disks[0].0.clone();
    let base = host.pool_dir().join("g1-0-base0.raw");
    let libvirt = Way::unix(&host).connect().await;

    host.define(&GuestSpec::micro("same").disk(DiskSpec::existing(&top, Format::Qcow2)));
    let before = World::of(&[&host], &[]);
    let error = libvirt.delete_source(&named("g1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("VM \"same\" uses it"), "{error}");
    before.assert_unchanged(&[&host], &[]);
    host.virsh(["undefine", "same"]);

    let above = host.pool_dir().join("above.qcow2");
    vmferry_testkit::image::overlay(&top, Format::Qcow2, &above);
    host.give(&above);
    let error = libvirt.delete_source(&named("g1")).await.unwrap_err();
    assert!(error.to_string().contains("volume \"above.qcow2\" uses it"), "{error}");
    std::fs::remove_file(&above).unwrap();

    libvirt.delete_source(&named("g1")).await.unwrap();
    assert!(!top.exists() && base.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_on_which_somebody_may_stand_stays() {
    let host = Host::session("a");
    let image = host
        .define(&GuestSpec::micro("g1").disk(DiskSpec::qcow2(16 * MIB)))
        .disks[0]
        .0
        .clone();
    let name = image.file_name().unwrap().to_str().unwrap().to_owned();
    let libvirt = Way::unix(&host).connect().await;
    let refused = async |says: &str| {
        let error = libvirt.delete_source(&named("g1")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(image.exists());
    };
    let overlay = |path: &std::path::Path, backing: &str| {
        let mut command = std::process::Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing]);
        vmferry_testkit::run(command.arg(path));
        host.give(path);
    };

    // By another spelling of its path.
    let beside = host.pool_dir().join("beside.qcow2");
    overlay(&beside, &format!("./{name}"));
    refused("volume \"beside.qcow2\" uses it").await;
    std::fs::remove_file(&beside).unwrap();

    // A clone elsewhere, shut off: first nobody can tell, then its pool can.
    let folder = host.dir().join("clones");
    std::fs::create_dir(&folder).unwrap();
    host.give(&folder);
    let clone = folder.join("clone.qcow2");
    overlay(&clone, &image.display().to_string());
    host.define(&GuestSpec::micro("clone").disk(DiskSpec::existing(&clone, Format::Qcow2)));
    refused("VM \"clone\" stands on it").await;
    let target = folder.display().to_string();
    host.virsh(["pool-create-as", "clones", "dir", "--target", &target]);
    refused("volume \"clone.qcow2\" uses it").await;
    host.virsh(["undefine", "clone"]);
    std::fs::remove_file(&clone).unwrap();

    libvirt.delete_source(&named("g1")).await.unwrap();
    assert!(!image.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_gone_is_no_vm_that_is_gone() {
    let host = Host::session("a");
    let folder = host.add_pool("other");
    host.virsh(["vol-create-as", "other", "disk.qcow2", "16M", "--format", "qcow2"]);
    host.define(&GuestSpec::micro("g1").disk(DiskSpec::existing(folder.join("disk.qcow2"), Format::Qcow2)));
    let file = format!("<source file='{}'/>", folder.join("disk.qcow2").display());
    let xml = host.virsh(["dumpxml", "g1"]);
    assert!(xml.contains(&file), "{xml}");
    let xml = xml
        .replace(&file, "<source pool='other' volume='disk.qcow2'/>")
        .replace("type='file' device='disk'", "type='volume' device='disk'");
    let path = host.dir().join("g1.xml");
    std::fs::write(&path, xml).unwrap();
    host.virsh(["define", &path.display().to_string()]);
    host.virsh(["pool-destroy", "other"]);
    host.virsh(["pool-undefine", "other"]);
    let libvirt = Way::unix(&host).connect().await;
    let error = libvirt.delete_source(&named("g1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(host.virsh(["list", "--all", "--name"]).contains("g1"));
}

/// What its guest has not written yet is in the memory that the host saved.
#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_memory_is_saved_is_neither_read_nor_deleted() {
    let host = Host::session("a");
    let guest = host.boot(&GuestSpec::small("g1"));
    let libvirt = Way::unix(&host).connect().await;
    host.virsh(["managedsave", "g1"]);
    let vm = crate::find(&libvirt, "g1").await;
    for error in [
        libvirt.check_source(&vm).await.unwrap_err(),
        libvirt.freeze(&vm, &crate::owner(), false).await.unwrap_err(),
        libvirt.delete_source(&named("g1")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains("managedsave-remove"), "{error}");
    }
    assert!(guest.disks[0].0.exists());
    host.virsh(["start", "g1"]);
    libvirt.delete_source(&named("g1")).await.unwrap();
}
