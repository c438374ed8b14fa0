//! VMDKs made by qemu-img, in every form that it knows, and by hand in those that it only reads, read the same as by
//! qemu-img.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{Folder, Memory, assert_content, block_on, noise, write_raw};
use vmferry_block::Buf;
use vmferry_image::{Error, Image, ImageFormat, Kind, Limits, NoBacking, Source};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 70 * MIB + 3 * 512;

/// A disk with noise, text that compresses, and holes, over more than two grain tables.
fn disk(folder: &Folder, name: &str) {
    let data = [
        (0, noise(1, 700_000)),
        (2 * MIB + 512, b"vmferry ".repeat(100_000)),
        (32 * MIB - 512, noise(3, 65_536)),
        (SIZE - 1024, noise(4, 1024)),
    ];
    write_raw(&folder.path(name), SIZE, &data);
}

fn check(folder: &Folder, name: &str) {
    let expected = folder.content(name);
    block_on(async {
        let image = folder.open(name, ImageFormat::Vmdk).await.unwrap();
        assert_content(&image, &expected).await;
        assert_eq!(image.map().await.unwrap(), folder.map(name, image.capacity()));
    });
}

fn convert(folder: &Folder, options: &str) {
    disk(folder, "disk.raw");
    folder.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        options,
        "disk.raw",
        "disk.vmdk",
    ]);
}

fn refused(folder: &Folder, name: &str) -> Error {
    block_on(folder.open(name, ImageFormat::Vmdk)).unwrap_err()
}

#[test]
fn every_subformat() {
    for subformat in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        for more in ["", ",adapter_type=lsilogic,hwversion=6"] {
            let folder = Folder::new();
            convert(&folder, &format!("subformat={subformat}{more}"));
            check(&folder, "disk.vmdk");
        }
    }
}

/// As ESXi writes the version, and Workstation the name on a Windows in German. The name is needed only where the disk is elsewhere.
#[test]
fn a_version_and_an_encoding_of_others() {
    let patch = |folder: &Folder, name: &str| {
        let mut file = std::fs::read(folder.path(name)).unwrap();
        for (old, new) in [(&b"version=1\n"[..], &b"version=4\n"[..]), (b"\"disk", b"\"d\xfcsk")] {
            let at = file.windows(old.len()).position(|window| window == old).unwrap();
            file[at..at + old.len()].copy_from_slice(new);
        }
        std::fs::write(folder.path(name), file).unwrap();
    };
    let folder = Folder::new();
    convert(&folder, "subformat=monolithicSparse");
    patch(&folder, "disk.vmdk");
    check(&folder, "disk.vmdk");
    let folder = Folder::new();
    convert(&folder, "subformat=monolithicFlat");
    patch(&folder, "disk.vmdk");
    let error = refused(&folder, "disk.vmdk");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("not in UTF-8"), "{error}");
}

#[test]
fn written_to_in_no_order_with_zeroed_grains() {
    for options in [
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=twoGbMaxExtentSparse,zeroed_grain=on",
        "subformat=monolithicFlat",
    ] {
        let folder = Folder::new();
        folder.qemu_img(&["create", "-f", "vmdk", "-o", options, "disk.vmdk", "70M"]);
        let writes = [
            "write -P 1 66M 1M",
            "write -P 2 100k 3M",
            "write -P 3 31M 2M",
            "write -z 1M 512k",
            "write -z 66M 64k",
            "write -P 4 50M 512",
        ];
        folder.qemu_io("disk.vmdk", &writes);
        check(&folder, "disk.vmdk");
        let runs = block_on(async { folder.open("disk.vmdk", ImageFormat::Vmdk).await?.data_runs().await });
        assert_eq!(runs.unwrap_err().kind(), Kind::Unsupported);
    }
}

#[test]
fn a_disk_split_into_files_of_2_gib() {
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let folder = Folder::new();
        let options = format!("subformat={subformat}");
        folder.qemu_img(&["create", "-f", "vmdk", "-o", &options, "disk.vmdk", "5G"]);
        let writes = ["write -P 1 2047M 2M", "write -P 2 4095M 2M", "write -P 3 5119M 1M"];
        folder.qemu_io("disk.vmdk", &writes);
        block_on(async {
            let image = folder.open("disk.vmdk", ImageFormat::Vmdk).await.unwrap();
            assert_eq!(image.capacity(), 5 << 30);
            assert_eq!(image.map().await.unwrap(), folder.map("disk.vmdk", 5 << 30));
            for (pattern, at, len) in [(1, 2047, 2), (2, 4095, 2), (3, 5119, 1), (0, 2050, 1)] {
                let buf = image.read(at * MIB, Buf::alone((len * MIB) as usize)).await.unwrap();
                assert!(buf.iter().all(|byte| *byte == pattern), "at {at} MiB");
            }
        });
    }
}

#[test]
fn a_chain_of_deltas_and_a_parent_that_was_written_to() {
    let folder = Folder::new();
    convert(&folder, "subformat=streamOptimized");
    for (top, base) in [("a.vmdk", "disk.vmdk"), ("b.vmdk", "a.vmdk")] {
        folder.qemu_img(&[
            "create",
            "-f",
            "vmdk",
            "-b",
            base,
            "-F",
            "vmdk",
            "-o",
            "zeroed_grain=on",
            top,
        ]);
    }
    folder.qemu_io("a.vmdk", &["write -P 1 100k 300k", "write -P 2 40M 1M"]);
    // The first write to a disk gives it another CID, which the disk over it must know.
    let error = refused(&folder, "b.vmdk");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains("CID"), "{error}");

    folder.qemu_img(&[
        "create",
        "-f",
        "vmdk",
        "-b",
        "a.vmdk",
        "-F",
        "vmdk",
        "-o",
        "zeroed_grain=on",
        "b.vmdk",
    ]);
    folder.qemu_io("b.vmdk", &["write -P 3 200k 64k", "write -z 41728k 64k"]);
    check(&folder, "b.vmdk");
    block_on(async {
        let image = folder.open("b.vmdk", ImageFormat::Vmdk).await.unwrap();
        assert_eq!(image.chain().collect::<Vec<_>>(), ["b.vmdk", "a.vmdk", "disk.vmdk"]);
    });
}

#[test]
fn other_files_are_opened_only_by_the_opener() {
    let folder = Folder::new();
    convert(&folder, "subformat=monolithicFlat");
    let text = std::fs::read_to_string(folder.path("disk.vmdk")).unwrap();
    let outside = text.replace("disk-flat.vmdk", "/etc/passwd");
    let delta = "createType=\"monolithicSparse\"\nparentCID=1\nparentFileNameHint=\"/etc/passwd\"\nRW 9 ZERO\n";
    for text in [outside.as_str(), delta] {
        let source = Source::new(
            "disk.vmdk",
            ImageFormat::Vmdk,
            Arc::new(Memory(text.as_bytes().to_vec())),
        );
        let error = block_on(Image::open(source, &NoBacking, Limits::default())).unwrap_err();
        assert_eq!(error.kind(), Kind::Hostile, "{error}");
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    }
}

const HEAD: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n";

#[test]
fn parts_of_files_and_zeros() {
    let folder = Folder::new();
    let bytes = noise(7, 64 << 10);
    folder.write("a.bin", &bytes);
    let lines = "RW 5 FLAT \"a.bin\" 3\nRW 7 ZERO\nRDONLY 2 FLAT \"a.bin\" 0\nRW 1 VMFS \"a.bin\"\n";
    folder.write("disk.vmdk", format!("{HEAD}{lines}"));
    let expected = [&bytes[3 * 512..8 * 512], &[0; 7 * 512], &bytes[..1024], &bytes[..512]].concat();
    block_on(async {
        let image = folder.open("disk.vmdk", ImageFormat::Vmdk).await.unwrap();
        assert_content(&image, &expected).await;
    });
    folder.write("short.vmdk", format!("{HEAD}RW 128 FLAT \"a.bin\" 1\n"));
    folder.write("gone.vmdk", format!("{HEAD}RW 128 FLAT \"b.bin\" 0\n"));
    let most = 1_u64 << 54;
    folder.write("wide.vmdk", format!("{HEAD}RW {most} FLAT \"a.bin\" {most}\n"));
    assert_eq!(refused(&folder, "short.vmdk").kind(), Kind::Corrupt);
    assert_eq!(refused(&folder, "wide.vmdk").kind(), Kind::Corrupt);
    assert_eq!(refused(&folder, "gone.vmdk").kind(), Kind::Missing);
}

/// As VMware and most others write it: the header leaves the grain directory to the footer.
#[test]
fn a_stream_with_its_directory_named_at_the_end() {
    let folder = Folder::new();
    convert(&folder, "subformat=streamOptimized");
    let expected = folder.content("disk.vmdk");
    let mut image = std::fs::read(folder.path("disk.vmdk")).unwrap();
    image.resize(image.len().next_multiple_of(512), 0);
    let mut marker = [0; 512];
    marker[12] = 3;
    let header = image[..512].to_vec();
    image[56..64].fill(0xff);
    image.extend([&marker[..], &header, &[0; 512]].concat());
    folder.write("end.vmdk", &image);
    assert!(folder.content("end.vmdk") == expected);
    check(&folder, "end.vmdk");

    for (name, image) in [
        ("cut.vmdk", &image[..image.len() - 1024]),
        ("header.vmdk", &image[..512]),
        ("other.vmdk", &{
            let mut other = image.clone();
            let at = image.len() - 1024 + 12;
            other[at] ^= 1;
            other
        }),
    ] {
        folder.write(name, image);
        let error = refused(&folder, name);
        assert_eq!(error.kind(), Kind::Corrupt, "{name}: {error}");
    }
}

/// A sparse file by hand, with `grains` from grain table entries, for what no tool here writes.
fn by_hand(flags: u32, entries: &[u32], tail: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 8 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV\x01");
    put(8, &flags.to_le_bytes());
    put(12, &(entries.len() as u64 * 128 - 3).to_le_bytes());
    put(20, &128u64.to_le_bytes());
    put(28, &1u64.to_le_bytes());
    put(36, &1u64.to_le_bytes());
    put(44, &512u32.to_le_bytes());
    put(56, &2u64.to_le_bytes());
    put(73, b"\n \r\n");
    put(77, &u16::from(flags & 0x1_0000 != 0).to_le_bytes());
    let sectors = entries.len() * 128 - 3;
    put(512, format!("{HEAD}RW {sectors} SPARSE \"me.vmdk\"\n").as_bytes());
    put(1024, &3u32.to_le_bytes());
    for (index, entry) in entries.iter().enumerate() {
        put(1536 + index * 4, &entry.to_le_bytes());
    }
    image.extend(tail);
    image
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut pack = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; pack.zlib_compress_bound(bytes.len())];
    let len = pack.zlib_compress(bytes, &mut packed).unwrap();
    packed.truncate(len.next_multiple_of(512));
    packed
}

#[test]
fn compressed_grains_without_markers_and_a_last_one_that_is_cut() {
    let folder = Folder::new();
    let (text, last) = (
        b"grain of salt. ".repeat(4370)[..65536].to_vec(),
        noise(5, 65536 - 3 * 512),
    );
    let (first, second) = (zlib(&text), zlib(&last));
    let entries = [8, 0, 8 + (first.len() / 512) as u32];
    folder.write("plain.vmdk", by_hand(0x1_0001, &entries, &[first, second].concat()));
    let expected = [text, vec![0; 65536], last].concat();
    assert!(folder.content("plain.vmdk") == expected);
    check(&folder, "plain.vmdk");
}

#[test]
fn an_entry_of_one_is_zeros_only_where_the_flag_says_so() {
    let folder = Folder::new();
    folder.write("zeroed.vmdk", by_hand(5, &[1, 8], &noise(1, 65536)));
    check(&folder, "zeroed.vmdk");
    folder.write("bad.vmdk", by_hand(1, &[1, 8], &noise(1, 65536)));
    let error = block_on(async { folder.open("bad.vmdk", ImageFormat::Vmdk).await?.map().await }).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

#[test]
fn a_grain_of_another_place_is_noticed() {
    let folder = Folder::new();
    convert(&folder, "subformat=streamOptimized");
    let mut image = std::fs::read(folder.path("disk.vmdk")).unwrap();
    // The first grain's marker says where it belongs.
    let first = (0x80 * 512..)
        .step_by(512)
        .find(|at| image[*at..at + 8] == [0; 8] && image[at + 8] != 0)
        .unwrap();
    image[first] = 128;
    folder.write("moved.vmdk", &image);
    let error = block_on(async {
        let image = folder.open("moved.vmdk", ImageFormat::Vmdk).await.unwrap();
        image.read(0, Buf::alone(4096)).await.unwrap_err()
    });
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains("sector 128"), "{error}");
}

#[test]
fn what_is_not_read_is_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.qemu_img(&[
        "create",
        "-f",
        "vmdk",
        "-o",
        "subformat=twoGbMaxExtentSparse",
        "part.vmdk",
        "1M",
    ]);
    folder.write("cowd.vmdk", [b"COWD".as_slice(), &[0; 2048]].concat());
    folder.write("se.vmdk", [[0xbe, 0xba, 0xfe, 0xca].as_slice(), &[0; 2048]].concat());
    folder.write("delta.vmdk", format!("{HEAD}RW 9 VMFSSPARSE \"x\"\n"));
    folder.write(
        "rdm.vmdk",
        format!("{HEAD}RW 9 ZERO\n").replace("custom", "vmfsRawDeviceMap"),
    );
    folder.write(
        "crypt.vmdk",
        format!("{HEAD}encryption.keySafe = \"vmware:key/list\"\nRW 9 ZERO\n"),
    );
    folder.write("text.vmdk", "a letter to a friend\n");
    folder.write("empty.vmdk", "");
    let cases = [
        ("cowd.vmdk", Kind::Unsupported, "qemu-img convert"),
        ("se.vmdk", Kind::Unsupported, "qemu-img convert"),
        ("delta.vmdk", Kind::Unsupported, "qemu-img convert"),
        ("rdm.vmdk", Kind::Unsupported, "vmfsRawDeviceMap"),
        ("crypt.vmdk", Kind::Encrypted, "decrypt"),
        ("part-s001.vmdk", Kind::Unsupported, "descriptor file"),
        ("text.vmdk", Kind::Corrupt, "name the format"),
        ("empty.vmdk", Kind::Corrupt, "name the format"),
    ];
    for (name, kind, hint) in cases {
        let error = refused(&folder, name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(hint), "{name}: {error}");
    }
}

#[test]
fn many_tasks_read_grains_at_once() {
    let folder = Folder::new();
    convert(&folder, "subformat=streamOptimized");
    let expected = Arc::new(folder.content("disk.vmdk"));
    block_on(async {
        let image = Arc::new(folder.open("disk.vmdk", ImageFormat::Vmdk).await.unwrap());
        let tasks = (0..SIZE / 1_000_000).map(|part| {
            let (image, expected) = (Arc::clone(&image), Arc::clone(&expected));
            tokio::spawn(async move {
                let at = part * 1_000_000;
                let read = image.read(at, Buf::alone(1_000_000)).await.unwrap();
                assert!(*read == expected[at as usize..][..1_000_000], "other bytes at {at}");
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}
