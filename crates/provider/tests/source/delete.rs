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
