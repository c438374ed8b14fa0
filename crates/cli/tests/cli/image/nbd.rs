//! From and to NBD.

use super::{MIB, Served, noise, qemu_img, raw_disk, same};
use crate::support::Bench;

#[test]
fn a_disk_goes_from_one_server_to_another() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 24 * MIB);
    qemu_img(
        &bench,
        &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"],
    );
    // What the destination held before must not shine through.
    std::fs::write(bench.path("old.raw"), noise(9, 24 * MIB)).unwrap();
    qemu_img(&bench, &["create", "-q", "-f", "qcow2", "new.qcow2", "30M"]);
    let from = Served::start(&bench, "from", &["--read-only", "--format=qcow2", "disk.qcow2"]);
    for (socket, format, name) in [("a", "raw", "old.raw"), ("b", "qcow2", "new.qcow2")] {
        let to = Served::start(
            &bench,
            socket,
            &["--discard=unmap", &format!("--format={format}"), name],
        );
        let ran = bench.run(&["image", "convert", "--verify", &from.place, &to.place]);
        assert!(ran.succeeded().contains("read back"), "{}", ran.out);
        let back = format!("{name}.back.raw");
        bench.run(&["image", "convert", &to.place, &back]).succeeded();
        drop(to);
        same(&bench, (name, format), (&back, "raw"));
    }
    same(&bench, ("disk.raw", "raw"), ("old.raw", "raw"));
    qemu_img(&bench, &["resize", "-q", "--shrink", "new.qcow2", "24M"]);
    same(&bench, ("disk.raw", "raw"), ("new.qcow2", "qcow2"));
}

#[test]
fn an_export_is_the_source_of_every_format() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 9 * MIB + 512);
    let from = Served::start(&bench, "from", &["--read-only", "--format=raw", "disk.raw"]);
    for format in ["raw", "qcow2", "vmdk"] {
        let copy = format!("copy.{format}");
        bench.run(&["image", "convert", &from.place, &copy]).succeeded();
        same(&bench, ("disk.raw", "raw"), (&copy, format));
    }
    let map = bench.run(&["image", "map", "--json", &from.place]);
    let map: Vec<serde_json::Value> = serde_json::from_str(map.succeeded()).unwrap();
    let total: u64 = map.iter().map(|run| run["length"].as_u64().unwrap()).sum();
    assert_eq!(total, 9 * MIB + 512);
}

#[test]
fn an_image_inside_an_export_is_read_when_it_is_named() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    qemu_img(
        &bench,
        &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"],
    );
    let from = Served::start(&bench, "from", &["--read-only", "--format=raw", "disk.qcow2"]);
    bench
        .run(&["image", "convert", "-f", "qcow2", &from.place, "copy.raw"])
        .succeeded();
    same(&bench, ("disk.raw", "raw"), ("copy.raw", "raw"));
}

#[test]
fn exports_that_are_not_fit_are_refused_before_a_byte_is_written() {
    let bench = Bench::new();
    raw_disk(&bench, "disk.raw", 8 * MIB);
    let before = noise(5, 4 * MIB);
    std::fs::write(bench.path("old.raw"), &before).unwrap();
    let small = Served::start(&bench, "small", &["--format=raw", "old.raw"]);
    let ran = bench.run(&["image", "convert", "disk.raw", &small.place]);
    ran.refused(1, &["4194304 bytes", "8388608", "at least as large"]);
    drop(small);
    let fixed = Served::start(&bench, "fixed", &["--read-only", "--format=raw", "old.raw"]);
    bench
        .run(&["image", "convert", "disk.raw", &fixed.place])
        .refused(1, &["read-only"]);
    let other = fixed.place.replace("/disk?", "/other?");
    bench
        .run(&["image", "info", &other])
        .refused(1, &["no export \"other\""]);
    let nowhere = format!("nbd+unix:///disk?socket={}", bench.path("nowhere").display());
    bench
        .run(&["image", "info", &nowhere])
        .refused(1, &["nowhere", "start its server"]);
    let named = bench.run(&["image", "convert", "-O", "qcow2", "disk.raw", &fixed.place]);
    named.refused(2, &["plain bytes", "qemu-nbd -f qcow2"]);
    assert!(std::fs::read(bench.path("old.raw")).unwrap() == before);
}

#[test]
fn a_server_that_fails_is_said() {
    let bench = Bench::new();
    std::fs::write(bench.path("disk.raw"), noise(2, 4 * MIB)).unwrap();
    std::fs::write(bench.path("old.raw"), vec![0; 4 << 20]).unwrap();
    let options = "driver=blkdebug,inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=28,\
                   image.driver=file,image.filename=old.raw";
    let full = Served::start(&bench, "full", &["--image-opts", options]);
    bench
        .run(&["image", "convert", "disk.raw", &full.place])
        .refused(1, &["errno 28", "make room"]);
}
