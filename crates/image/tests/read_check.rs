//! Checks find what `qemu-img check` finds, on sound images and on damaged ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::process::Command;
use std::sync::Arc;

use common::{Folder, Memory, block_on, noise, write_raw};
use vmferry_image::{Depth, ImageFormat, Limits, Report, Severity, Source, check};

const MIB: u64 = 1 << 20;

fn disk(folder: &Folder) {
    let data = [
        (0, noise(1, 700_000)),
        (2 * MIB + 512, b"vmferry ".repeat(100_000)),
        (35 * MIB, noise(3, 65_536)),
    ];
    write_raw(&folder.path("disk.raw"), 40 * MIB, &data);
}

fn ours(folder: &Folder, name: &str, depth: Depth) -> Report {
    let format = if name.ends_with("vmdk") {
        ImageFormat::Vmdk
    } else {
        ImageFormat::Qcow2
    };
    let bytes = std::fs::read(folder.path(name)).unwrap();
    let source = Source::new(name, format, Arc::new(Memory(bytes)));
    block_on(check(source, folder, Limits::default(), depth)).unwrap()
}

/// Errors and leaks by qemu-img.
fn qemu(folder: &Folder, name: &str) -> (u64, u64, u64) {
    let args = ["check", "--output=json", "-f", name.rsplit_once('.').unwrap().1, name];
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let number = |key: &str| json[key].as_u64().unwrap_or(0);
    assert_eq!(number("check-errors"), 0, "{json}");
    (number("corruptions"), number("leaks"), number("allocated-clusters"))
}

/// Whether qemu-img finds nothing wrong.
fn qemu_takes(folder: &Folder, name: &str) -> bool {
    let args = ["check", "-f", "vmdk", name];
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    output.status.success()
}

fn compare(folder: &Folder, name: &str) -> Report {
    let report = ours(folder, name, Depth::Content);
    let (errors, leaks, allocated) = qemu(folder, name);
    assert_eq!(
        (report.errors > 0, report.leaks),
        (errors > 0, leaks),
        "{name}: qemu-img has {errors} errors: {report:#?}"
    );
    if name.ends_with("qcow2") && errors == 0 {
        assert_eq!(report.allocated_clusters, allocated, "{name}");
    }
    report
}

fn sound(folder: &Folder, name: &str) {
    let report = compare(folder, name);
    assert!(report.is_sound() && report.findings.is_empty(), "{report:#?}");
}

#[test]
fn sound_qcow2() {
    for options in [
        "compat=v2",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=4k,refcount_bits=64",
        "cluster_size=2M",
        "extended_l2=on,refcount_bits=8",
        "preallocation=full,cluster_size=4k",
        "lazy_refcounts=on",
    ] {
        for flags in [&[][..], &["-c"], &["-c", "-W", "-m", "4"]] {
            if options.starts_with("prealloc") && !flags.is_empty() {
                continue;
            }
            let folder = Folder::new();
            disk(&folder);
            let convert = ["convert", "-O", "qcow2", "-o", options];
            folder.qemu_img(&[&convert[..], flags, &["disk.raw", "disk.qcow2"]].concat());
            sound(&folder, "disk.qcow2");
        }
    }
}

#[test]
fn sound_with_snapshots_bitmaps_and_a_backing_file_that_is_gone() {
    let folder = Folder::new();
    folder.qemu_img(&["create", "-f", "qcow2", "-o", "cluster_size=4k", "base.qcow2", "40M"]);
    folder.qemu_img(&["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2"]);
    for n in 0..3 {
        let write = format!("write -P {n} {n}M 3M");
        folder.qemu_io("disk.qcow2", &[&write, "write -z 20M 1M", "discard 1M 128k"]);
        folder.qemu_img(&["snapshot", "-c", &format!("number {n}"), "disk.qcow2"]);
        folder.qemu_img(&["bitmap", "--add", "--enable", "disk.qcow2", &format!("b{n}")]);
    }
    folder.qemu_io("disk.qcow2", &["write -P 9 30M 2M"]);
    sound(&folder, "disk.qcow2");
    folder.qemu_img(&["snapshot", "-d", "number 1", "disk.qcow2"]);
    sound(&folder, "disk.qcow2");
    std::fs::remove_file(folder.path("base.qcow2")).unwrap();
    assert!(ours(&folder, "disk.qcow2", Depth::Tables).is_sound());
}

#[test]
fn sound_vmdk() {
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "twoGbMaxExtentSparse",
        "monolithicFlat",
    ] {
        let folder = Folder::new();
        disk(&folder);
        let options = format!("subformat={subformat}");
        folder.qemu_img(&["convert", "-O", "vmdk", "-o", &options, "disk.raw", "disk.vmdk"]);
        let report = ours(&folder, "disk.vmdk", Depth::Content);
        assert!(report.is_sound() && report.findings.is_empty(), "{report:#?}");
        assert!(qemu_takes(&folder, "disk.vmdk"), "{subformat}");
        if subformat != "monolithicFlat" {
            assert_eq!((report.total_clusters, report.allocated_clusters), (640, 25));
        }
    }
}

/// A big-endian number in an image.
fn number(image: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(image[at as usize..][..8].try_into().unwrap())
}

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

#[test]
fn damaged_qcow2() {
    let folder = Folder::new();
    disk(&folder);
    folder.qemu_img(&["convert", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
    let image = std::fs::read(folder.path("disk.qcow2")).unwrap();
    let (l1, table) = (number(&image, 40), number(&image, 48));
    let l2 = number(&image, l1) & OFFSET;
    let block = number(&image, table);
    let data = number(&image, l2) & OFFSET;
    let own = 1 << 63;
    let cases: [(&str, u64, &[u8]); 12] = [
        ("a refcount of 0", block + data / 65536 * 2, &[0, 0]),
        ("a refcount of 2", block + data / 65536 * 2, &[0, 2]),
        ("a leak", block + image.len() as u64 / 65536 * 2 - 2, &[0, 9]),
        ("data on data", l2, &(number(&image, l2 + 8)).to_be_bytes()),
        ("data on the L2 table", l2, &(l2 | own).to_be_bytes()),
        ("data on the header", l2 + 400, &(65536 | own).to_be_bytes()),
        (
            "data in the middle of a cluster",
            l2,
            &((data + 512) | own).to_be_bytes(),
        ),
        ("data past the end", l2, &(1 << 40 | own).to_be_bytes()),
        ("data that is not its own", l2, &data.to_be_bytes()),
        ("a table past the end", l1, &(1 << 40 | own).to_be_bytes()),
        ("no refcount block", table, &[0; 8]),
        ("reserved bits", l2, &(data | own | 2).to_be_bytes()),
    ];
    for (what, at, bytes) in cases {
        let mut image = image.clone();
        image[at as usize..][..bytes.len()].copy_from_slice(bytes);
        folder.write("damaged.qcow2", &image);
        let report = compare(&folder, "damaged.qcow2");
        assert!(!report.findings.is_empty(), "{what} was not found");
        assert_eq!(
            report.is_sound(),
            report.findings.iter().all(|f| f.severity == Severity::Leak),
            "{what}"
        );
    }
}

#[test]
fn random_damage_is_found_where_qemu_finds_it() {
    let folder = Folder::new();
    disk(&folder);
    folder.qemu_img(&[
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "disk.raw",
        "disk.qcow2",
    ]);
    let image = std::fs::read(folder.path("disk.qcow2")).unwrap();
    let (l1, table) = (number(&image, 40), number(&image, 48));
    let places = [
        l1,
        number(&image, l1) & OFFSET,
        table,
        number(&image, table),
        number(&image, l1 + 8) & OFFSET,
    ];
    let random = noise(42, 4000);
    for case in random.chunks_exact(12).take(120) {
        let mut image = image.clone();
        let at = places[usize::from(case[0]) % places.len()] as usize + usize::from(case[1]) * 8 % 512;
        let bit = usize::from(case[2]) % 64;
        image[at + bit / 8] ^= 1 << (bit % 8);
        folder.write("damaged.qcow2", &image);
        let report = ours(&folder, "damaged.qcow2", Depth::Tables);
        let (errors, leaks, _) = qemu(&folder, "damaged.qcow2");
        assert_eq!(
            (report.errors > 0, report.leaks),
            (errors > 0, leaks),
            "bit {bit} at {at}: {report:#?}"
        );
    }
}

#[test]
fn damaged_vmdk() {
    let folder = Folder::new();
    disk(&folder);
    folder.qemu_img(&["convert", "-O", "vmdk", "disk.raw", "disk.vmdk"]);
    let image = std::fs::read(folder.path("disk.vmdk")).unwrap();
    let sector = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let directory = sector(56) as usize * 512;
    let table = sector(directory) as usize * 512;
    let first = sector(table);
    // qemu-img looks at nothing but the end of the file.
    for (what, at, value, qemu) in [
        ("a grain past the end", table, 1 << 30, false),
        ("a grain on the header", table, 1, true),
        ("a grain on the grain table", table, sector(directory), true),
        ("a grain on a grain", table + 4, first + 1, true),
        ("a table past the end", directory, 1 << 30, true),
        ("a table on the directory", directory, sector(56), true),
    ] {
        let mut image = image.clone();
        image[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        folder.write("damaged.vmdk", &image);
        let report = ours(&folder, "damaged.vmdk", Depth::Tables);
        assert_eq!(qemu_takes(&folder, "damaged.vmdk"), qemu, "{what}");
        assert!(!report.is_sound(), "{what} was not found");
        assert_eq!(report.errors, report.findings.len() as u64);
    }
}

#[test]
fn content_that_does_not_unpack_is_found_only_by_looking_at_it() {
    for (format, options) in [
        ("qcow2", "compression_type=zstd"),
        ("qcow2", "compat=v2"),
        ("vmdk", "subformat=streamOptimized"),
    ] {
        let folder = Folder::new();
        let half: Vec<u8> = noise(1, 1 << 20).iter().map(|byte| byte & 0x0f).collect();
        write_raw(&folder.path("disk.raw"), 4 * MIB, &[(0, half)]);
        let name = format!("disk.{format}");
        let flags = if format == "qcow2" { &["-c"][..] } else { &[] };
        folder.qemu_img(&[&["convert", "-O", format, "-o", options], flags, &["disk.raw", &name]].concat());
        let mut image = std::fs::read(folder.path(&name)).unwrap();
        let at = if format == "qcow2" {
            let l2 = number(&image, number(&image, 40)) & OFFSET;
            number(&image, l2) & ((1 << 54) - 1)
        } else {
            let sector = |at: u64| u64::from(u32::from_le_bytes(image[at as usize..][..4].try_into().unwrap()));
            sector(sector(sector(56) * 512) * 512) * 512 + 12
        };
        image[at as usize..][..16].fill(0xff);
        folder.write(&name, &image);
        assert!(ours(&folder, &name, Depth::Tables).is_sound());
        let report = ours(&folder, &name, Depth::Content);
        assert_eq!((report.errors, report.findings.len()), (1, 1), "{name}: {report:#?}");
    }
}

#[test]
fn raw_is_always_sound() {
    let source = Source::new("disk", ImageFormat::Raw, Arc::new(Memory(vec![7; 5000])));
    let folder = Folder::new();
    let report = block_on(check(source, &folder, Limits::default(), Depth::Content)).unwrap();
    assert!(report.is_sound());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (json["format"].as_str(), json["errors"].as_u64()),
        (Some("raw"), Some(0))
    );
}
