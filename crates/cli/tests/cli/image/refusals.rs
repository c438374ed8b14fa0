//! What is not opened, and what is not understood.

use std::os::unix::fs::symlink;

use super::{MIB, names, noise, qemu_img, raw_disk, same};
use crate::support::Bench;

/// An overlay in `sub` that names this backing file, whatever it is.
fn overlay(bench: &Bench, name: &str, backing: &str, format: Option<&str>) {
    let path = format!("sub/{name}");
    qemu_img(bench, &["create", "-q", "-f", "qcow2", &path, "8M"]);
    let mut args = vec!["rebase", "-u", "-f", "qcow2", "-b", backing];
    args.extend(format.into_iter().flat_map(|format| ["-F", format]));
    args.push(&path);
    qemu_img(bench, &args);
}

#[test]
fn hostile_backing_files_are_not_opened() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).unwrap();
    std::fs::create_dir(bench.path("outside")).unwrap();
    std::fs::write(bench.path("outside/secret.raw"), noise(1, 8 * MIB)).unwrap();
    symlink("../outside/secret.raw", bench.path("sub/link.raw")).unwrap();
    symlink("../outside", bench.path("sub/way")).unwrap();
    let outside = bench.path("outside/secret.raw").display().to_string();
    for (name, backing, words) in [
        ("a.qcow2", "../../../../../../etc/passwd", "outside"),
        ("b.qcow2", "/etc/passwd", "outside"),
        ("c.qcow2", outside.as_str(), "outside"),
        ("d.qcow2", "link.raw", "link"),
        ("e.qcow2", "way/secret.raw", "link"),
        (
            "f.qcow2",
            "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}}",
            "plain path",
        ),
        ("g.qcow2", "nbd://127.0.0.1:1/x", "plain path"),
        ("h.qcow2", "/dev/zero", "outside"),
        ("i.qcow2", "../sub", "outside"),
    ] {
        overlay(&bench, name, backing, Some("raw"));
        let path = format!("sub/{name}");
        let before = names(&bench.path("."));
        for args in [
            &["image", "map", &path][..],
            &["image", "check", &path],
            &["image", "convert", &path, "copy.raw"],
        ] {
            bench.run(args).refused(1, &[words, "--pool"]);
        }
        assert_eq!(names(&bench.path(".")), before);
        // What it names is not followed, and may be looked at.
        assert!(
            bench
                .run(&["image", "info", &path])
                .succeeded()
                .contains("backing file")
        );
    }
}

#[test]
fn a_loop_ends() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).unwrap();
    overlay(&bench, "a.qcow2", "b.qcow2", Some("qcow2"));
    overlay(&bench, "b.qcow2", "a.qcow2", Some("qcow2"));
    for args in [&["image", "map", "sub/a.qcow2"][..], &["image", "check", "sub/a.qcow2"]] {
        bench.run(args).refused(1, &["loop"]);
    }
}

#[test]
fn backing_files_in_the_pool_are_followed() {
    let bench = Bench::new();
    for folder in ["sub", "sub/deep"] {
        std::fs::create_dir(bench.path(folder)).unwrap();
    }
    raw_disk(&bench, "base.raw", 8 * MIB);
    std::fs::copy(bench.path("base.raw"), bench.path("sub/deep/base.raw")).unwrap();
    overlay(&bench, "near.qcow2", "./deep/../deep/base.raw", Some("raw"));
    overlay(&bench, "above.qcow2", "../base.raw", Some("raw"));
    let absolute = bench.path("base.raw").display().to_string();
    overlay(&bench, "absolute.qcow2", &absolute, Some("raw"));
    overlay(&bench, "two.qcow2", "above.qcow2", Some("qcow2"));

    bench
        .run(&["image", "convert", "sub/near.qcow2", "near.raw"])
        .succeeded();
    same(&bench, ("base.raw", "raw"), ("near.raw", "raw"));
    for name in ["above", "absolute", "two"] {
        let (image, copy) = (format!("sub/{name}.qcow2"), format!("{name}.raw"));
        bench
            .run(&["image", "convert", &image, &copy])
            .refused(1, &["base.raw", "outside", "--pool"]);
        bench
            .run(&["image", "convert", "--pool", ".", &image, &copy])
            .succeeded();
        same(&bench, ("base.raw", "raw"), (&copy, "raw"));
    }
    overlay(&bench, "gone.qcow2", "nothing.raw", Some("raw"));
    bench
        .run(&["image", "map", "sub/gone.qcow2"])
        .refused(1, &["nothing.raw", "no file"]);
    bench
        .run(&["image", "map", "--pool", "no-such", "sub/near.qcow2"])
        .refused(2, &["--pool", "no-such"]);
}

#[test]
fn the_format_of_a_backing_file_is_recorded_or_given() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).unwrap();
    raw_disk(&bench, "sub/base.raw", 8 * MIB);
    // qemu-img no longer makes such images: the extension that records the format is blotted out.
    overlay(&bench, "top.qcow2", "base.raw", Some("raw"));
    let mut bytes = std::fs::read(bench.path("sub/top.qcow2")).unwrap();
    let at = bytes
        .windows(4)
        .position(|four| four == 0xe279_2aca_u32.to_be_bytes())
        .unwrap();
    bytes[at..at + 4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    std::fs::write(bench.path("sub/top.qcow2"), bytes).unwrap();
    bench
        .run(&["image", "map", "sub/top.qcow2"])
        .refused(1, &["not recorded", "--backing-format"]);
    bench
        .run(&["image", "convert", "-F", "raw", "sub/top.qcow2", "copy.raw"])
        .succeeded();
    same(&bench, ("sub/base.raw", "raw"), ("copy.raw", "raw"));
}

#[test]
fn parts_of_a_vmdk_are_found_in_the_pool_alone() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).unwrap();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    let args = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "disk.raw",
        "sub/a.vmdk",
    ];
    qemu_img(&bench, &args);
    bench.run(&["image", "convert", "sub/a.vmdk", "copy.raw"]).succeeded();
    same(&bench, ("disk.raw", "raw"), ("copy.raw", "raw"));
    let text = std::fs::read_to_string(bench.path("sub/a.vmdk")).unwrap();
    std::fs::write(bench.path("sub/a.vmdk"), text.replace("a-flat.vmdk", "../disk.raw")).unwrap();
    bench
        .run(&["image", "convert", "sub/a.vmdk", "again.raw"])
        .refused(1, &["disk.raw"]);
}

#[test]
fn a_name_and_a_content_that_contradict_each_other_are_both_named() {
    let bench = Bench::new();
    qemu_img(&bench, &["create", "-q", "-f", "qcow2", "really.raw", "8M"]);
    qemu_img(&bench, &["create", "-q", "-f", "vmdk", "really.qcow2", "8M"]);
    bench
        .run(&["image", "info", "really.raw"])
        .refused(1, &["says raw", "looks like qcow2", "-f qcow2", "-f raw"]);
    bench
        .run(&["image", "info", "really.qcow2"])
        .refused(1, &["says qcow2", "looks like vmdk"]);
    bench
        .run(&["image", "info", "-f", "vmdk", "really.raw"])
        .refused(1, &["says vmdk", "looks like qcow2"]);
    // A disk may hold anything, where its owner says that it is one.
    let told = bench.run(&["image", "info", "--json", "-f", "raw", "really.raw"]);
    assert!(told.succeeded().contains("\"format\":\"raw\""), "{}", told.out);
    bench.run(&["image", "info", "-f", "qcow2", "really.raw"]).succeeded();
}

#[test]
fn what_makes_no_sense_is_bad_usage() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    std::fs::write(bench.path("disk"), "x").unwrap();
    for (args, words) in [
        (&["info", "disk"][..], "-f raw, qcow2 or vmdk"),
        (&["info", "-f", "nbd", "disk.raw"], "not known"),
        (&["convert", "disk.raw"], "DST"),
        (&["convert", "disk.raw", "copy"], "-O raw, qcow2 or vmdk"),
        (&["convert", "-O", "vhdx", "disk.raw", "copy"], "vhdx is not written"),
        (&["info", "ssh://host/disk.raw"], "not a place for images"),
        (&["info", "nbd+unix:///disk"], "names no socket"),
        (&["info", "https://me:hunter2@host/disk.raw"], "--secret"),
        (&["map", "--output", "xml", "disk.raw"], "xml"),
    ] {
        let args = [&["image"], args].concat();
        bench.run(&args).refused(2, &[words]);
    }
    bench
        .run(&["image", "info", "nothing.raw"])
        .refused(1, &["nothing.raw", "No such file"]);
    bench
        .run(&["image", "info", "-f", "raw", "."])
        .refused(1, &["neither a file nor a block device"]);
    bench
        .run(&["image", "convert", "disk.raw", "no/such/copy.raw"])
        .refused(1, &["make its folder first"]);
}

#[test]
fn damaged_headers_are_refused_with_a_reason() {
    let bench = Bench::new();
    let nonsense = noise(4, 4096);
    for name in ["a.qcow2", "a.vmdk"] {
        std::fs::write(bench.path(name), &nonsense).unwrap();
        for action in ["info", "map", "check"] {
            bench.run(&["image", action, name]).refused(1, &[name]);
        }
        bench.run(&["image", "convert", name, "copy.raw"]).refused(1, &[name]);
    }
    for name in ["b.qcow2", "b.vmdk"] {
        std::fs::write(bench.path(name), "").unwrap();
        bench.run(&["image", "info", name]).refused(1, &[name]);
    }
    let secret = "create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 c.qcow2 8M";
    qemu_img(&bench, &secret.split(' ').collect::<Vec<_>>());
    bench.run(&["image", "map", "c.qcow2"]).refused(1, &["encrypted"]);
}
