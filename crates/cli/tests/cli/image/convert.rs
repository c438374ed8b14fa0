//! Files to files.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::{MIB, names, noise, qemu_img, raw_disk, same};
use crate::support::{Bench, Ran};

/// The images of a disk that users have: name, QEMU's name of the format, and how it is made.
const SOURCES: [(&str, &str, &[&str]); 7] = [
    ("plain.qcow2", "qcow2", &[]),
    ("packed.qcow2", "qcow2", &["-c"]),
    ("zstd.qcow2", "qcow2", &["-c", "-o", "compression_type=zstd"]),
    ("old.qcow2", "qcow2", &["-o", "compat=0.10,cluster_size=4096"]),
    ("sparse.vmdk", "vmdk", &["-o", "subformat=monolithicSparse"]),
    ("stream.vmdk", "vmdk", &["-o", "subformat=streamOptimized"]),
    ("flat.vmdk", "vmdk", &["-o", "subformat=monolithicFlat"]),
];

#[test]
fn every_format_becomes_every_other() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    let mut sources = vec![("disk.raw", "raw")];
    for (name, format, options) in SOURCES {
        let args = [&["convert", "-f", "raw", "-O", format], options, &["disk.raw", name]].concat();
        qemu_img(&bench, &args);
        sources.push((name, format));
    }
    let mut digests = std::collections::BTreeSet::new();
    for (source, _) in &sources {
        for format in ["raw", "qcow2", "vmdk"] {
            let copy = format!("copy-of-{source}.{format}");
            let ran = bench.run(&["image", "convert", "--verify", "--json", source, &copy]);
            let told: serde_json::Value = serde_json::from_str(ran.succeeded()).unwrap();
            same(&bench, ("disk.raw", "raw"), (&copy, format));
            if format != "raw" {
                qemu_img(&bench, &["check", "-f", format, &copy]);
            }
            assert_eq!(told["sha256"], sha256sum(&bench, &copy), "{copy}");
            assert_eq!(told["virtualSize"], 24 * MIB);
            assert_eq!(told["writtenLength"], bench.path(&copy).metadata().unwrap().len());
            digests.insert(told["contentDigest"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(digests.len(), 1, "one disk, one content digest: {digests:?}");
    assert!(names(&bench.path(".")).iter().all(|name| !name.starts_with('.')));
}

fn sha256sum(bench: &Bench, name: &str) -> String {
    let output = Command::new("sha256sum").arg(bench.path(name)).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn a_disk_of_an_odd_size_stays_whole() {
    let bench = Bench::new();
    raw_disk(&bench, "odd.raw", 9 * MIB + 512 * 3);
    for format in ["raw", "qcow2", "vmdk"] {
        let copy = format!("copy.{format}");
        bench
            .run(&["image", "convert", "--verify", "odd.raw", &copy])
            .succeeded();
        same(&bench, ("odd.raw", "raw"), (&copy, format));
    }
    std::fs::write(bench.path("empty.raw"), "").unwrap();
    bench.run(&["image", "convert", "empty.raw", "empty.qcow2"]).succeeded();
    same(&bench, ("empty.raw", "raw"), ("empty.qcow2", "qcow2"));
    bench
        .run(&["image", "convert", "empty.raw", "empty.vmdk"])
        .refused(1, &["62 TiB"]);
}

#[test]
fn zeros_take_no_space_in_a_copy() {
    let bench = Bench::new();
    std::fs::write(bench.path("zeros.raw"), vec![0; 32 << 20]).unwrap();
    for format in ["raw", "qcow2", "vmdk"] {
        let copy = format!("copy.{format}");
        bench.run(&["image", "convert", "zeros.raw", &copy]).succeeded();
        let taken = bench.path(&copy).metadata().unwrap().blocks() * 512;
        assert!(taken <= MIB, "{copy} takes {taken} bytes");
        same(&bench, ("zeros.raw", "raw"), (&copy, format));
    }
}

#[test]
fn a_huge_sparse_disk_costs_what_its_data_cost() {
    let bench = Bench::new();
    let file = std::fs::File::create(bench.path("huge.raw")).unwrap();
    file.set_len(2 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(1, MIB), 1 << 40).unwrap();
    for copy in ["huge.qcow2", "huge.vmdk"] {
        bench.run(&["image", "convert", "huge.raw", copy]).succeeded();
        assert!(bench.path(copy).metadata().unwrap().len() < 16 * MIB);
        bench.run(&["image", "check", copy]).succeeded();
    }
    bench
        .run(&["image", "convert", "--no-sha256", "huge.qcow2", "again.raw"])
        .succeeded();
    let digest = |name: &str| {
        let ran = bench.run(&["image", "convert", "--json", name, &format!("{name}.2.qcow2")]);
        let told: serde_json::Value = serde_json::from_str(ran.succeeded()).unwrap();
        told["contentDigest"].clone()
    };
    assert_eq!(digest("again.raw"), digest("huge.vmdk"));
}

#[test]
fn what_exists_is_replaced_only_when_asked_for() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    std::fs::write(bench.path("copy.qcow2"), "mine").unwrap();
    let before = names(&bench.path("."));
    bench
        .run(&["image", "convert", "disk.raw", "copy.qcow2"])
        .refused(1, &["copy.qcow2", "it exists", "--force"]);
    assert_eq!(std::fs::read(bench.path("copy.qcow2")).unwrap(), b"mine");
    assert_eq!(names(&bench.path(".")), before);
    bench
        .run(&["image", "convert", "--force", "disk.raw", "copy.qcow2"])
        .succeeded();
    same(&bench, ("disk.raw", "raw"), ("copy.qcow2", "qcow2"));
    assert_eq!(names(&bench.path(".")), before);

    std::fs::create_dir(bench.path("folder.raw")).unwrap();
    std::os::unix::fs::symlink("disk.raw", bench.path("link.raw")).unwrap();
    for taken in ["folder.raw", "link.raw"] {
        let ran = bench.run(&["image", "convert", "--force", "disk.raw", taken]);
        ran.refused(1, &[taken, "no plain file"]);
    }
}

#[test]
fn a_copy_over_the_image_itself_is_made_whole_first() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    qemu_img(
        &bench,
        &["convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "disk.qcow2"],
    );
    bench
        .run(&["image", "convert", "--force", "disk.qcow2", "disk.qcow2"])
        .succeeded();
    same(&bench, ("disk.raw", "raw"), ("disk.qcow2", "qcow2"));
}

/// In a mount namespace of its own, with a folder of 4 MiB.
#[test]
fn a_full_disk_is_said_and_nothing_is_left() {
    let bench = Bench::new();
    std::fs::write(bench.path("disk.raw"), noise(3, 12 * MIB)).unwrap();
    std::fs::create_dir(bench.path("small")).unwrap();
    for format in ["raw", "qcow2", "vmdk"] {
        let script = "mount -t tmpfs -o size=4m none small || exit 77; \"$@\"; code=$?; ls -A small; exit $code";
        let program = assert_cmd::cargo::cargo_bin("vmferry");
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(program)
            .args(["image", "convert", "disk.raw", &format!("small/copy.{format}")])
            .current_dir(bench.path("."))
            .output()
            .unwrap();
        let ran = Ran::from(output);
        ran.refused(1, &["small/copy", "No space left", "make room"]);
        assert_eq!(ran.out, "", "something is left");
    }
}

#[test]
fn people_are_told_what_was_done() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    let ran = bench.run(&["image", "convert", "--verify", "disk.raw", "copy.vmdk"]);
    for words in [
        "vmdk of",
        "8.0 MiB of disk",
        "content digest  sha256:",
        "file            sha256:",
        "read back",
    ] {
        assert!(ran.succeeded().contains(words), "{words:?} is not in: {}", ran.out);
    }
}
