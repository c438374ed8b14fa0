//! Information, maps and checks.

use std::os::unix::fs::FileExt;

use serde_json::Value;

use super::{MIB, noise, qemu_img, raw_disk};
use crate::support::Bench;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_image_says_what_it_is() {
    let bench = Bench::new();
    raw_disk(&bench, "base.raw", 16 * MIB);
    qemu_img(
        &bench,
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            "subformat=streamOptimized",
            "base.raw",
            "a.vmdk",
        ],
    );
    qemu_img(
        &bench,
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "base.raw",
            "-F",
            "raw",
            "top.qcow2",
        ],
    );
    qemu_img(&bench, &["snapshot", "-c", "first", "top.qcow2"]);

    let top = json(
        bench
            .run(&["image", "info", "--output", "json", "top.qcow2"])
            .succeeded(),
    );
    for (field, value) in [
        ("format", Value::from("qcow2")),
        ("virtualSize", (16 * MIB).into()),
        ("clusterSize", 65536.into()),
        ("backingFile", "base.raw".into()),
        ("backingFormat", "raw".into()),
    ] {
        assert_eq!(top[field], value, "{field} in {top}");
    }
    assert_eq!(top["qcow2"]["snapshots"], 1, "{top}");
    let vmdk = json(bench.run(&["image", "info", "--json", "a.vmdk"]).succeeded());
    assert_eq!(vmdk["vmdk"]["createType"], "streamOptimized", "{vmdk}");

    let text = bench.run(&["image", "info", "top.qcow2"]);
    for words in [
        "qcow2, version 3",
        "16.0 MiB (16777216 bytes)",
        "\"base.raw\" (raw)",
        "snapshots       1",
    ] {
        assert!(text.succeeded().contains(words), "{words:?} is not in: {}", text.out);
    }
}

#[test]
fn a_map_is_the_one_of_qemu() {
    let bench = Bench::new();
    let file = std::fs::File::create(bench.path("disk.raw")).unwrap();
    file.set_len(16 * MIB).unwrap();
    file.write_all_at(&noise(1, MIB), 2 * MIB).unwrap();
    file.write_all_at(&noise(2, 128 << 10), 9 * MIB).unwrap();
    for (format, options) in [("qcow2", &[][..]), ("qcow2", &["-c"]), ("vmdk", &[])] {
        let args = [&["convert", "-f", "raw", "-O", format], options, &["disk.raw", "image"]].concat();
        qemu_img(&bench, &args);
        let theirs = json(&qemu_img(&bench, &["map", "--output=json", "-f", format, "image"]));
        let theirs: Vec<_> = theirs
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run["zero"] == false)
            .collect();
        let ours = json(
            bench
                .run(&["image", "map", "--json", "-f", format, "image"])
                .succeeded(),
        );
        let ours = ours.as_array().unwrap();
        let data = |runs: &[&Value]| -> u64 { runs.iter().map(|run| run["length"].as_u64().unwrap()).sum() };
        let ours_data: Vec<_> = ours.iter().filter(|run| run["data"] == true).collect();
        assert_eq!(data(&ours_data), data(&theirs), "{format} {options:?}");
        assert_eq!(ours_data[0]["start"], 2 * MIB);
        assert_eq!(ours.last().unwrap()["zero"], true);
    }
    let text = bench.run(&["image", "map", "-f", "vmdk", "image"]);
    assert!(
        text.succeeded()
            .contains("             2097152              1048576 data"),
        "{}",
        text.out
    );
}

#[test]
fn a_sound_image_is_sound_and_a_damaged_one_is_not() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 16 * MIB);
    for (name, format, options) in [
        ("plain.qcow2", "qcow2", &[][..]),
        ("packed.qcow2", "qcow2", &["-c"]),
        ("stream.vmdk", "vmdk", &["-o", "subformat=streamOptimized"]),
    ] {
        let args = [&["convert", "-f", "raw", "-O", format], options, &["disk.raw", name]].concat();
        qemu_img(&bench, &args);
        let ran = bench.run(&["image", "check", name]);
        assert!(ran.succeeded().contains("no error"), "{}", ran.out);
    }
    // The second L2 entry of a plain qcow2 that QEMU made points past any file.
    let damaged = std::fs::File::options()
        .write(true)
        .read(true)
        .open(bench.path("plain.qcow2"))
        .unwrap();
    let mut l1 = [0; 8];
    damaged.read_exact_at(&mut l1, 40).unwrap();
    let mut l2 = [0; 8];
    damaged.read_exact_at(&mut l2, u64::from_be_bytes(l1)).unwrap();
    let entry = (u64::from_be_bytes(l2) & 0x00ff_ffff_ffff_fe00) + 8;
    damaged
        .write_all_at(&(1u64 << 63 | 1 << 50).to_be_bytes(), entry)
        .unwrap();
    let ran = bench.run(&["image", "check", "--json", "plain.qcow2"]);
    ran.refused(1, &["plain.qcow2 is damaged", "error"]);
    let report = json(&ran.out);
    assert!(report["errors"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["findings"][0]["detail"].is_string(), "{report}");

    // Grains that do not unpack.
    let size = bench.path("stream.vmdk").metadata().unwrap().len();
    let damaged = std::fs::File::options()
        .write(true)
        .open(bench.path("stream.vmdk"))
        .unwrap();
    damaged.write_all_at(&[0xff; 4096], size / 2).unwrap();
    bench
        .run(&["image", "check", "stream.vmdk"])
        .refused(1, &["stream.vmdk"]);
    let before = super::names(&bench.path("."));
    bench
        .run(&["image", "convert", "stream.vmdk", "copy.raw"])
        .refused(1, &["stream.vmdk"]);
    assert_eq!(super::names(&bench.path(".")), before, "a part of a copy is left");
}

#[test]
fn the_files_below_are_checked_too() {
    let bench = Bench::new();
    qemu_img(&bench, &["create", "-q", "-f", "qcow2", "base.qcow2", "16M"]);
    qemu_img(
        &bench,
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "base.qcow2",
            "-F",
            "qcow2",
            "top.qcow2",
        ],
    );
    let ran = bench.run(&["image", "check", "top.qcow2"]);
    assert!(ran.succeeded().contains("base.qcow2: no error"), "{}", ran.out);
    let cut = std::fs::File::options()
        .write(true)
        .open(bench.path("base.qcow2"))
        .unwrap();
    cut.set_len(100).unwrap();
    bench.run(&["image", "check", "top.qcow2"]).refused(1, &["base.qcow2"]);
}
