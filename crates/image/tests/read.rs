//! Images made by qemu-img with every option that is supported read the same as by qemu-img.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{Folder, Memory, assert_content, block_on, noise, write_raw};
use vmferry_block::{AllocationMap, Buf, LocalFile};
use vmferry_image::{Image, ImageFormat, Kind, Limits, NoBacking, Source};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 9 * MIB + 3 * 512;

/// A disk with noise, text that compresses, and holes.
fn disk(folder: &Folder, name: &str) {
    let text = b"vmferry ".repeat(100_000);
    let data = [
        (0, noise(1, 700_000)),
        (2 * MIB + 512, text),
        (5 * MIB, noise(2, 4096)),
        (7 * MIB - 512, noise(3, 65_536)),
        (SIZE - 1024, noise(4, 1024)),
    ];
    write_raw(&folder.path(name), SIZE, &data);
}

fn check(folder: &Folder, name: &str) {
    let expected = folder.content(name);
    block_on(async {
        let image = folder.open(name, ImageFormat::Qcow2).await.unwrap();
        assert_content(&image, &expected).await;
        assert_eq!(image.map().await.unwrap(), folder.map(name, image.capacity()));
    });
}

/// Converts the disk with these options and reads it.
fn check_converted(options: &str, flags: &[&str]) {
    let folder = Folder::new();
    disk(&folder, "disk.raw");
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    args.extend(flags);
    args.extend(["disk.raw", "disk.qcow2"]);
    folder.qemu_img(&args);
    check(&folder, "disk.qcow2");
}

#[test]
fn every_cluster_size_and_version() {
    for size in ["512", "4k", "64k", "2M"] {
        check_converted(&format!("compat=v3,cluster_size={size}"), &[]);
    }
    for size in ["512", "64k", "1M"] {
        check_converted(&format!("compat=v2,cluster_size={size}"), &[]);
    }
}

#[test]
fn compressed_with_deflate() {
    for options in ["compat=v2", "cluster_size=512", "cluster_size=64k", "cluster_size=2M"] {
        check_converted(options, &["-c"]);
    }
}

#[test]
fn compressed_with_zstd() {
    for size in ["4k", "64k", "2M"] {
        check_converted(&format!("compression_type=zstd,cluster_size={size}"), &["-c"]);
    }
}

#[test]
fn extended_l2() {
    check_converted("extended_l2=on,cluster_size=64k", &[]);
    check_converted("extended_l2=on,cluster_size=128k", &["-c"]);
}

#[test]
fn preallocated() {
    check_converted("preallocation=metadata", &[]);
    check_converted("preallocation=full,lazy_refcounts=on", &[]);
}

#[test]
fn written_to_with_zero_clusters_discards_and_snapshots() {
    for options in ["cluster_size=64k", "cluster_size=4k", "extended_l2=on,cluster_size=64k"] {
        let folder = Folder::new();
        folder.qemu_img(&["create", "-f", "qcow2", "-o", options, "disk.qcow2", "12M"]);
        folder.qemu_io(
            "disk.qcow2",
            &["write -P 1 0 3M", "write -P 2 9M 1M", "write -P 3 5000k 3k"],
        );
        folder.qemu_img(&["snapshot", "-c", "before", "disk.qcow2"]);
        folder.qemu_io(
            "disk.qcow2",
            &[
                "write -P 4 1M 100k",
                "write -z 128k 200k",
                "write -z -u 2M 64k",
                "discard 2200k 128k",
                "write -P 5 10M 8k",
            ],
        );
        check(&folder, "disk.qcow2");
    }
}

#[test]
fn a_chain_of_four_with_sizes_that_differ() {
    let folder = Folder::new();
    disk(&folder, "base.raw");
    folder.qemu_img(&["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "a.qcow2", "12M"]);
    folder.qemu_io(
        "a.qcow2",
        &["write -P 1 100k 300k", "write -P 7 11M 512", "write -z 5M 64k"],
    );
    let small = [
        "create",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        "a.qcow2",
        "-F",
        "qcow2",
        "b.qcow2",
        "8M",
    ];
    folder.qemu_img(&small);
    folder.qemu_io(
        "b.qcow2",
        &["write -P 2 200k 8k", "write -z 300k 64k", "write -P 3 7M 1k"],
    );
    let top = [
        "create",
        "-f",
        "qcow2",
        "-o",
        "extended_l2=on",
        "-b",
        "b.qcow2",
        "-F",
        "qcow2",
        "top.qcow2",
        "14M",
    ];
    folder.qemu_img(&top);
    folder.qemu_io(
        "top.qcow2",
        &["write -P 4 204k 2k", "write -P 5 13M 1M", "write -z 2M 4k"],
    );
    check(&folder, "top.qcow2");
    block_on(async {
        let image = folder.open("top.qcow2", ImageFormat::Qcow2).await.unwrap();
        let chain: Vec<_> = image.chain().collect();
        assert_eq!(chain, ["top.qcow2", "b.qcow2", "a.qcow2", "base.raw"]);
        assert_eq!(image.data_runs().await.unwrap_err().kind(), Kind::Unsupported);
    });
}

#[test]
fn a_loop_of_backing_files_ends() {
    let folder = Folder::new();
    folder.qemu_img(&["create", "-f", "qcow2", "a.qcow2", "1M"]);
    folder.qemu_img(&["create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2"]);
    folder.qemu_img(&["rebase", "-u", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2"]);
    let error = block_on(folder.open("b.qcow2", ImageFormat::Qcow2)).unwrap_err();
    assert_eq!(error.kind(), Kind::Hostile);
    assert!(error.to_string().contains("64"), "{error}");
}

#[test]
fn a_backing_file_is_opened_only_by_the_opener() {
    let folder = Folder::new();
    let json = r#"json:{"driver":"file","filename":"/etc/passwd"}"#;
    folder.qemu_img(&["create", "-u", "-f", "qcow2", "-b", json, "-F", "raw", "a.qcow2", "1M"]);
    block_on(async {
        let file = Arc::new(LocalFile::open(folder.path("a.qcow2")).await.unwrap());
        let source = Source::new("a.qcow2", ImageFormat::Qcow2, file);
        let error = Image::open(source, &NoBacking, Limits::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Hostile);
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    });
}

#[test]
fn encrypted_and_external_data_are_refused_with_what_to_do() {
    let folder = Folder::new();
    let secret = ["create", "--object", "secret,id=s,data=x", "-f", "qcow2", "-o"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    folder.qemu_img(&[&secret[..], &[luks, "luks.qcow2", "1M"]].concat());
    folder.qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        "data_file=data.raw",
        "external.qcow2",
        "1M",
    ]);
    for (name, kind) in [("luks.qcow2", Kind::Encrypted), ("external.qcow2", Kind::Unsupported)] {
        let error = block_on(folder.open(name, ImageFormat::Qcow2)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("qemu-img convert"), "{error}");
    }
}

#[test]
fn a_raw_image_is_its_file() {
    let folder = Folder::new();
    disk(&folder, "disk.raw");
    let expected = std::fs::read(folder.path("disk.raw")).unwrap();
    block_on(async {
        let file = LocalFile::open(folder.path("disk.raw")).await.unwrap();
        let map = file.data_extents().await.unwrap();
        let image = Image::raw("disk.raw", Arc::new(file), map.clone());
        assert_content(&image, &expected).await;
        assert_eq!(image.map().await.unwrap(), map);

        let image = folder.open("disk.raw", ImageFormat::Raw).await.unwrap();
        assert_content(&image, &expected).await;
        assert_eq!(image.map().await.unwrap(), AllocationMap::full(SIZE));
        assert_eq!(image.data_runs().await.unwrap().len(), 1);
        let past = image.read(SIZE - 1, Buf::alone(2)).await.unwrap_err();
        assert_eq!(past.kind(), Kind::Bug);
    });
}

#[test]
fn many_tasks_read_at_once() {
    let folder = Folder::new();
    disk(&folder, "disk.raw");
    folder.qemu_img(&[
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "cluster_size=256k",
        "disk.raw",
        "disk.qcow2",
    ]);
    let expected = Arc::new(folder.content("disk.qcow2"));
    block_on(async {
        let image = Arc::new(folder.open("disk.qcow2", ImageFormat::Qcow2).await.unwrap());
        let tasks = (0..SIZE / 100_000).map(|part| {
            let (image, expected) = (Arc::clone(&image), Arc::clone(&expected));
            tokio::spawn(async move {
                let at = part * 100_000;
                let read = image.read(at, Buf::alone(100_000)).await.unwrap();
                assert!(*read == expected[at as usize..][..100_000], "other bytes at {at}");
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_raw_file_of_an_odd_size_ends_with_a_whole_sector() {
    block_on(async {
        let bytes = noise(1, 70_001);
        for map in [None, Some(AllocationMap::full(70_001))] {
            let mut source = Source::new("odd", ImageFormat::Raw, Arc::new(Memory(bytes.clone())));
            source.holes = map;
            let image = Image::open(source, &NoBacking, Limits::default()).await.unwrap();
            let mut expected = bytes.clone();
            expected.resize(137 * 512, 0);
            assert_content(&image, &expected).await;
        }
    });
}

#[test]
fn what_is_not_in_the_order_of_the_disk_is_not_decoded_front_to_back() {
    let folder = Folder::new();
    folder.qemu_img(&["create", "-f", "qcow2", "disk.qcow2", "12M"]);
    folder.qemu_io("disk.qcow2", &["write -P 1 9M 1M", "write -P 2 1M 1M"]);
    check(&folder, "disk.qcow2");
    disk(&folder, "disk.raw");
    folder.qemu_img(&["convert", "-c", "-O", "qcow2", "disk.raw", "packed.qcow2"]);
    for name in ["disk.qcow2", "packed.qcow2"] {
        let runs = block_on(async { folder.open(name, ImageFormat::Qcow2).await?.data_runs().await });
        assert_eq!(runs.unwrap_err().kind(), Kind::Unsupported);
    }
}
