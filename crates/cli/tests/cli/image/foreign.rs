//! Formats that qemu-nbd reads.

use std::os::unix::fs::PermissionsExt as _;

use super::{MIB, names, qemu_img, raw_disk, same};
use crate::support::Bench;

#[test]
fn other_formats_are_read_through_qemu_nbd() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let sockets = bench.path("tmp");
    std::fs::create_dir(&sockets).unwrap();
    for (name, format, given) in [
        ("a.vhdx", "vhdx", None),
        ("b.vdi", "vdi", None),
        ("c.vhd", "vpc", None),
        ("--d,e=f.img", "qed", Some("qed")),
        ("g.hdd", "parallels", Some("parallels")),
    ] {
        let made = format!("./{name}");
        let option = if format == "vpc" {
            "subformat=dynamic,force_size=on"
        } else {
            ""
        };
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !option.is_empty() {
            args.extend(["-o", option]);
        }
        args.extend(["disk.raw", &made]);
        qemu_img(&bench, &args);
        for to in ["qcow2", "vmdk"] {
            let copy = format!("copy-of-{format}.{to}");
            let mut args = vec!["image", "convert", "--verify"];
            args.extend(given.into_iter().flat_map(|format| ["-f", format]));
            args.extend(["--", &made, &copy]);
            let output = bench.command(&args).env("TMPDIR", &sockets).output().unwrap();
            crate::support::Ran::from(output).succeeded();
            same(&bench, ("disk.raw", "raw"), (&copy, to));
        }
        assert_eq!(names(&sockets), Vec::<String>::new(), "a socket is left");
    }
    let info = bench.run(&["image", "info", "--output", "json", "b.vdi"]);
    let info: serde_json::Value = serde_json::from_str(info.succeeded()).unwrap();
    assert_eq!(
        (&info["format"], &info["virtualSize"]),
        (&"vdi".into(), &(24 * MIB).into())
    );
    bench.run(&["image", "check", "a.vhdx"]).succeeded();
    bench.run(&["image", "map", "a.vhdx"]).succeeded();
}

#[test]
fn without_qemu_nbd_it_says_what_to_install() {
    let bench = Bench::new();
    std::fs::write(bench.path("a.vhdx"), b"vhdxfile").unwrap();
    let mut command = bench.command(&["image", "info", "a.vhdx"]);
    let ran = crate::support::Ran::from(command.env("PATH", "/nonexistent").output().unwrap());
    ran.refused(1, &["qemu-nbd, which is not installed", "qemu-utils", "a.vhdx"]);
}

#[test]
fn what_is_not_the_named_format_is_refused_with_the_words_of_qemu() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    bench
        .run(&["image", "info", "-f", "vhdx", "disk.raw"])
        .refused(1, &["disk.raw", "vhdx", "qemu-nbd says"]);
    bench
        .run(&["image", "info", "-f", "luks", "disk.raw"])
        .refused(1, &["passphrase"]);
}

/// qemu-nbd listens before it opens the image: a client may be there first, and then sees a connection that ends.
#[test]
fn a_refusal_that_comes_after_the_connection_is_told_too() {
    const LATE: &str = r#"#!/usr/bin/env python3
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--socket") + 1])
listener.listen()
listener.accept()[0].close()
print("qemu-nbd: Failed to open: no signature", file=sys.stderr)
sys.exit(1)
"#;
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", MIB);
    let programs = bench.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let program = programs.join("qemu-nbd");
    std::fs::write(&program, LATE).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = bench.command(&["image", "info", "-f", "vhdx", "disk.raw"]);
    let ran = crate::support::Ran::from(command.env("PATH", path).output().unwrap());
    ran.refused(1, &["disk.raw", "vhdx", "qemu-nbd says: Failed to open: no signature"]);
}

/// A backing file is a path that the image names; through qemu-nbd none is opened.
#[test]
fn a_backing_file_of_a_foreign_image_is_not_opened() {
    let bench = Bench::new();
    std::fs::write(bench.path("secret.raw"), super::noise(1, MIB)).unwrap();
    qemu_img(
        &bench,
        &["create", "-q", "-f", "qed", "-b", "secret.raw", "-F", "raw", "top.qed"],
    );
    bench.run(&["image", "convert", "top.qed", "copy.raw"]).succeeded();
    assert!(
        std::fs::read(bench.path("copy.raw"))
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}
