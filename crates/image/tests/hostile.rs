//! No image, however broken, makes the reader panic, hang, or take memory for what a number in it says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::sync::OnceLock;

use common::{Folder, noise, write_raw};
use proptest::prelude::*;
use vmferry_image::{ImageFormat, Kind};

/// Small images of every kind, made once.
fn images() -> &'static [Vec<u8>] {
    static IMAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let folder = Folder::new();
        let text = b"text ".repeat(10_000);
        write_raw(
            &folder.path("disk.raw"),
            400_384,
            &[(0, text), (200_192, noise(1, 50_000))],
        );
        let options: [&[&str]; 6] = [
            &["-o", "cluster_size=512,compat=v2"],
            &["-o", "cluster_size=4k"],
            &["-o", "cluster_size=64k"],
            &["-o", "cluster_size=16k,extended_l2=on"],
            &["-c", "-o", "cluster_size=4k"],
            &["-c", "-o", "cluster_size=16k,compression_type=zstd"],
        ];
        let convert = |options: &[&str]| {
            folder.qemu_img(&[&["convert", "-O", "qcow2"], options, &["disk.raw", "image"]].concat());
            std::fs::read(folder.path("image")).unwrap()
        };
        options.into_iter().map(convert).collect()
    })
}

fn exercise(image: Vec<u8>) -> Option<vmferry_image::Error> {
    common::exercise(ImageFormat::Qcow2, image)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn a_mutated_image_is_an_error_or_a_disk(
        which in any::<prop::sample::Index>(),
        header in prop::collection::vec((0usize..112, any::<u8>()), 0..3),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        words in prop::collection::vec((0usize..100, 0usize..16, any::<u64>(), 0u32..64), 0..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut image = images()[which.index(images().len())].clone();
        for (at, byte) in header {
            image[at] = byte;
        }
        for (at, byte) in bytes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        // Tables start at multiples of 4 KiB in most of these images. Of their entries, small ones are the most
        // interesting, and those that lie within the file.
        for (block, word_in_block, word, shift) in words {
            if let Some(entry) = image.as_chunks_mut::<8>().0.get_mut(block * 512 + word_in_block) {
                *entry = (word >> shift).to_be_bytes();
            }
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        if let Some(error) = exercise(image) {
            prop_assert_ne!(error.kind(), Kind::Bug, "{}", error);
        }
    }
}

/// Offsets in the header and what is put there.
type Fields<'a> = &'a [(usize, &'a [u8])];

/// A sound image with 4 KiB clusters after which these fields of the header were set.
fn with_header(fields: Fields<'_>) -> vmferry_image::Error {
    let mut image = images()[1].clone();
    for (at, bytes) in fields {
        image[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    exercise(image).expect("it was taken for sound")
}

#[test]
fn sound_images_are_taken() {
    for image in images() {
        assert!(exercise(image.clone()).is_none());
    }
}

/// Stale refcounts do not matter to who only reads.
#[test]
fn a_dirty_image_is_taken() {
    let mut image = images()[1].clone();
    image[79] |= 1;
    assert!(exercise(image).is_none());
}

#[test]
fn hostile_headers_are_refused() {
    let max = u64::MAX.to_be_bytes();
    let cases: [(&str, Fields<'_>, Kind); 16] = [
        ("magic", &[(0, b"QFI\0")], Kind::Corrupt),
        ("version", &[(4, &[0, 0, 0, 9])], Kind::Unsupported),
        (
            "backing name past the cluster",
            &[(8, &[0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 0, 0, 9])],
            Kind::Corrupt,
        ),
        (
            "backing name of 4 GiB",
            &[(8, &[0, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff])],
            Kind::Corrupt,
        ),
        ("cluster bits", &[(20, &[0, 0, 0, 63])], Kind::Corrupt),
        ("size", &[(24, &max)], Kind::Corrupt),
        ("encryption", &[(32, &[0, 0, 0, 2])], Kind::Encrypted),
        ("L1 of 32 GiB", &[(24, &[0, 0x7f]), (36, &[0xff; 4])], Kind::Corrupt),
        ("L1 past the end", &[(40, &[0, 0, 0, 1])], Kind::Corrupt),
        ("L1 at the end of all", &[(40, &max)], Kind::Corrupt),
        ("refcount table", &[(48, &max)], Kind::Corrupt),
        ("corrupt bit", &[(79, &[2])], Kind::Corrupt),
        (
            "compression type without room",
            &[(79, &[8]), (100, &[0, 0, 0, 104])],
            Kind::Corrupt,
        ),
        ("unknown compression", &[(79, &[8]), (104, &[7])], Kind::Unsupported),
        ("header length", &[(100, &[0, 0, 0, 73])], Kind::Corrupt),
        ("unknown feature", &[(72, &[0x80])], Kind::Unsupported),
    ];
    for (name, fields, kind) in cases {
        let error = with_header(fields);
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

/// Points the first L1 entry, then the first L2 entry, to where it must not.
#[test]
fn tables_that_point_into_nowhere_are_corrupt() {
    let image = &images()[1];
    let number = |at: u64| u64::from_be_bytes(image[at as usize..][..8].try_into().unwrap());
    let l1 = number(40);
    let l2 = number(l1) & 0x00ff_ffff_ffff_fe00;
    let past_end = (image.len() as u64).next_multiple_of(4096);
    for table in [l1, l2] {
        for target in [4096 + 512, past_end, 1 << 55, l1, number(48)] {
            let mut image = image.clone();
            image[table as usize..][..8].copy_from_slice(&target.to_be_bytes());
            let error = exercise(image).unwrap_or_else(|| panic!("{table} → {target} was taken for sound"));
            assert_eq!(error.kind(), Kind::Corrupt, "{table} → {target}: {error}");
        }
    }
}

/// A disk of 2^61 bytes whose four million L1 entries all name one L2 table would take years to walk.
#[test]
fn tables_that_are_shared_are_refused() {
    let cluster = 2 << 20;
    let mut image = vec![0; 20 * cluster];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &21u32.to_be_bytes());
    put(24, &(1u64 << 61).to_be_bytes());
    put(36, &(4u32 << 20).to_be_bytes());
    put(40, &(2 * cluster as u64).to_be_bytes());
    put(100, &104u32.to_be_bytes());
    for entry in 0..4 << 20 {
        put(2 * cluster + entry * 8, &(19 * cluster as u64).to_be_bytes());
    }
    let error = exercise(image).unwrap();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}
