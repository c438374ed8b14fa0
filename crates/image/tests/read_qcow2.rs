//! The corners of the qcow2 specification that ordinary images do not have.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use common::{Folder, assert_content, block_on, noise, write_raw};
use vmferry_image::{Error, ImageFormat, Kind, NoBacking, inspect};
use vmferry_image::{Info, Limits};

const MIB: u64 = 1 << 20;

fn check(folder: &Folder, name: &str) {
    let expected = folder.content(name);
    block_on(async {
        let image = folder.open(name, ImageFormat::Qcow2).await.unwrap();
        assert_content(&image, &expected).await;
        assert_eq!(image.map().await.unwrap(), folder.map(name, image.capacity()));
    });
}

fn refused(folder: &Folder, name: &str) -> Error {
    block_on(folder.open(name, ImageFormat::Qcow2)).unwrap_err()
}

/// Writes at random places, so that clusters are in no order, partly zero, discarded and allocated again.
fn scribble(folder: &Folder, name: &str, seed: u64) {
    let random = noise(seed, 600);
    let commands = random.chunks_exact(6).map(|bytes| {
        let at = (u64::from(bytes[0]) << 16 | u64::from(bytes[1]) << 8) / 512 * 512;
        let len = (u64::from(bytes[2]) << 8 | 512) * 2 / 512 * 512;
        match bytes[3] % 6 {
            0 => format!("write -z {at} {len}"),
            1 => format!("write -z -u {at} {len}"),
            2 => format!("discard {at} {len}"),
            _ => format!("write -P {} {at} {len}", bytes[4]),
        }
    });
    let commands: Vec<String> = commands.collect();
    folder.qemu_io(name, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn random_writes_over_a_backing_file() {
    let options = [
        "compat=v2,cluster_size=512",
        "compat=v2",
        "cluster_size=1k,refcount_bits=2",
        "cluster_size=64k,refcount_bits=64,lazy_refcounts=on",
        "cluster_size=2M",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M",
    ];
    for (seed, options) in options.into_iter().enumerate() {
        let folder = Folder::new();
        write_raw(
            &folder.path("base.raw"),
            20 * MIB,
            &[(0, noise(9, 3_000_000)), (7 * MIB, noise(8, 4_000_000))],
        );
        let base = ["-b", "base.raw", "-F", "raw"];
        folder.qemu_img(
            &[
                &["create", "-f", "qcow2", "-o", options],
                &base[..],
                &["disk.qcow2", "18M"],
            ]
            .concat(),
        );
        scribble(&folder, "disk.qcow2", seed as u64);
        check(&folder, "disk.qcow2");
        folder.qemu_img(&["snapshot", "-c", "one", "disk.qcow2"]);
        scribble(&folder, "disk.qcow2", seed as u64 + 100);
        check(&folder, "disk.qcow2");
        folder.qemu_img(&["snapshot", "-a", "one", "disk.qcow2"]);
        check(&folder, "disk.qcow2");
    }
}

#[test]
fn compressed_clusters_written_over_and_in_no_order() {
    for options in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zstd,extended_l2=on",
    ] {
        let folder = Folder::new();
        let half: Vec<u8> = noise(1, 9 << 20).iter().map(|byte| byte & 0x1f).collect();
        write_raw(&folder.path("disk.raw"), 18 * MIB, &[(MIB, half)]);
        let convert = [
            "convert",
            "-c",
            "-W",
            "-m",
            "8",
            "-O",
            "qcow2",
            "-o",
            options,
            "disk.raw",
            "disk.qcow2",
        ];
        folder.qemu_img(&convert);
        check(&folder, "disk.qcow2");
        scribble(&folder, "disk.qcow2", 7);
        check(&folder, "disk.qcow2");
    }
}

#[test]
fn bitmaps_are_ignored() {
    let folder = Folder::new();
    folder.qemu_img(&["create", "-f", "qcow2", "disk.qcow2", "20M"]);
    folder.qemu_img(&["bitmap", "--add", "-g", "64k", "disk.qcow2", "b0"]);
    folder.qemu_io("disk.qcow2", &["write -P 1 1M 3M"]);
    check(&folder, "disk.qcow2");
    assert_eq!(info(&folder, "disk.qcow2").qcow2.unwrap().bitmaps, 1);
}

#[test]
fn encrypted_in_the_old_way_is_refused() {
    let folder = Folder::new();
    let secret = [
        "--object",
        "secret,id=s,data=x",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=s",
    ];
    folder.qemu_img(&[&["create", "-f", "qcow2"], &secret[..], &["aes.qcow2", "1M"]].concat());
    let error = refused(&folder, "aes.qcow2");
    assert_eq!(error.kind(), Kind::Encrypted);
    assert!(error.to_string().contains("AES"), "{error}");
}

/// Offsets in the header and what is put there.
type Fields<'a> = &'a [(usize, &'a [u8])];

/// Opens an image whose header was changed.
fn with(folder: &Folder, options: &str, fields: Fields<'_>) -> Error {
    folder.qemu_img(&["create", "-f", "qcow2", "-o", options, "a.qcow2", "1M"]);
    let mut image = std::fs::read(folder.path("a.qcow2")).unwrap();
    for (at, bytes) in fields {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    folder.write("a.qcow2", image);
    refused(folder, "a.qcow2")
}

#[test]
fn an_unknown_feature_is_named() {
    let folder = Folder::new();
    folder.qemu_img(&["create", "-f", "qcow2", "a.qcow2", "1M"]);
    let image = std::fs::read(folder.path("a.qcow2")).unwrap();
    // QEMU writes the table of names: its first entry becomes that of bit 9.
    let table = image
        .windows(4)
        .position(|bytes| bytes == [0x68, 0x03, 0xf8, 0x57])
        .unwrap();
    let error = with(&folder, "compat=v3", &[(78, &[2]), (table + 8, b"\0\x09warp drive\0")]);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("\"warp drive\" (bit 9)"), "{error}");
    let error = with(&folder, "compat=v3", &[(72, &[0x80])]);
    assert!(error.to_string().contains("bit 63"), "{error}");
}

#[test]
fn what_the_header_must_not_say() {
    let folder = Folder::new();
    let cases: [(&str, &str, Fields<'_>); 6] = [
        (
            "a compression type without its feature bit",
            "compat=v3",
            &[(104, &[1])],
        ),
        ("the feature bit without a compression type", "compat=v3", &[(79, &[8])]),
        ("subclusters in small clusters", "cluster_size=8k", &[(79, &[16])]),
        ("refcounts of 128 bits", "compat=v3", &[(99, &[7])]),
        (
            "a header longer than a cluster",
            "cluster_size=512",
            &[(100, &[0, 0, 4, 0])],
        ),
        (
            "an extension longer than a cluster",
            "compat=v3",
            &[(112, &[1, 2, 3, 4, 0, 2, 0, 0])],
        ),
    ];
    for (what, options, fields) in cases {
        let error = with(&folder, options, fields);
        assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
    }
}

fn info(folder: &Folder, name: &str) -> Info {
    let format = if name.ends_with("vmdk") {
        ImageFormat::Vmdk
    } else {
        ImageFormat::Qcow2
    };
    block_on(async {
        let file = std::sync::Arc::new(vmferry_block::LocalFile::open(folder.path(name)).await.unwrap());
        let source = vmferry_image::Source::new(name, format, file);
        inspect(source, &NoBacking, Limits::default()).await.unwrap()
    })
}

#[test]
fn what_an_image_says_of_itself() {
    let folder = Folder::new();
    let options = "compression_type=zstd,extended_l2=on,cluster_size=128k,refcount_bits=32";
    let create = [
        "create", "-u", "-f", "qcow2", "-o", options, "-b", "gone.raw", "-F", "raw", "a.qcow2", "3M",
    ];
    folder.qemu_img(&create);
    folder.qemu_img(&[
        "create",
        "-f",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        "a.vmdk",
        "3M",
    ]);
    let qcow2 = serde_json::to_value(info(&folder, "a.qcow2")).unwrap();
    let size = std::fs::metadata(folder.path("a.qcow2")).unwrap().len();
    let expected = serde_json::json!({
        "name": "a.qcow2", "format": "qcow2", "virtualSize": 3 * MIB, "fileSize": size, "version": 3, "clusterSize": 131_072,
        "compression": "zstd", "backingFile": "gone.raw", "backingFormat": "raw",
        "qcow2": {"snapshots": 0, "bitmaps": 0, "extendedL2": true, "refcountBits": 32, "dirty": false},
    });
    assert_eq!(qcow2, expected);
    let vmdk = info(&folder, "a.vmdk");
    assert_eq!(
        (vmdk.version, vmdk.cluster_size, vmdk.compression),
        (Some(3), Some(65536), Some("deflate"))
    );
    let own = vmdk.vmdk.unwrap();
    assert_eq!((own.create_type.as_str(), own.parent_cid), ("streamOptimized", None));
    assert_eq!(
        (own.extents[0].kind, own.extents[0].size, own.extents[0].file.as_deref()),
        ("sparse", 3 * MIB, Some("a.vmdk"))
    );
    assert_eq!(vmdk.file_size, std::fs::metadata(folder.path("a.vmdk")).unwrap().len());
}
