//! No VMDK, however broken, makes the reader panic, hang, or take memory for what a number in it says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::sync::OnceLock;

use common::{Folder, noise, write_raw};
use proptest::prelude::*;
use vmferry_image::{Error, ImageFormat, Kind};

/// Small images of every kind that is one file, made once.
fn images() -> &'static [Vec<u8>] {
    static IMAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let folder = Folder::new();
        let text = b"text ".repeat(40_000);
        write_raw(
            &folder.path("disk.raw"),
            400_384,
            &[(0, text), (262_144, noise(1, 90_000))],
        );
        let convert = |options: &str| {
            folder.qemu_img(&["convert", "-O", "vmdk", "-o", options, "disk.raw", "image.vmdk"]);
            std::fs::read(folder.path("image.vmdk")).unwrap()
        };
        let (sparse, stream) = (
            convert("subformat=monolithicSparse,zeroed_grain=on"),
            convert("subformat=streamOptimized"),
        );
        let end = with_footer(stream.clone());
        vec![sparse, stream, end]
    })
}

/// The same stream with its grain directory named by a footer.
fn with_footer(mut image: Vec<u8>) -> Vec<u8> {
    image.resize(image.len().next_multiple_of(512), 0);
    let mut marker = [0; 512];
    marker[12] = 3;
    let header = image[..512].to_vec();
    image[56..64].fill(0xff);
    image.extend([&marker[..], &header, &[0; 512]].concat());
    image
}

fn exercise(image: Vec<u8>) -> Option<Error> {
    common::exercise(ImageFormat::Vmdk, image)
}

#[test]
fn sound_images_are_taken() {
    for image in images() {
        assert!(exercise(image.clone()).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn a_mutated_image_is_an_error_or_a_disk(
        which in any::<prop::sample::Index>(),
        header in prop::collection::vec((0usize..80, any::<u8>()), 0..3),
        text in prop::collection::vec((512usize..900, any::<u8>()), 0..3),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        words in prop::collection::vec((20usize..40, 0usize..8, any::<u32>(), 0u32..32), 0..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut image = images()[which.index(images().len())].clone();
        for (at, byte) in header.into_iter().chain(text) {
            image[at] = byte;
        }
        for (at, byte) in bytes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        // The grain directories and the grain tables are in these sectors.
        for (sector, word_in_sector, word, shift) in words {
            if let Some(entry) = image.as_chunks_mut::<4>().0.get_mut(sector * 128 + word_in_sector) {
                *entry = (word >> shift).to_le_bytes();
            }
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        if let Some(error) = exercise(image) {
            prop_assert_ne!(error.kind(), Kind::Bug, "{}", error);
        }
    }

    #[test]
    fn a_mutated_descriptor_is_an_error_or_zeros(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..6),
        lines in prop::collection::vec("(RW|RDONLY|NOACCESS) [0-9]{1,20} (ZERO|FLAT|SPARSE|VMFS)( \"[a-z./]{0,9}\")?( -?[0-9]{1,20})?", 0..4),
    ) {
        let mut text: Vec<char> = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\nRW 9 ZERO\n".chars().collect();
        text.extend(lines.join("\n").chars());
        for (at, edit) in edits {
            let at = at.index(text.len());
            text[at] = edit;
        }
        if let Some(error) = exercise(text.into_iter().collect::<String>().into_bytes()) {
            prop_assert_ne!(error.kind(), Kind::Bug, "{}", error);
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let max = [0xff; 8];
    let cases: [(&str, usize, &[u8], Kind); 17] = [
        ("version", 4, &[4], Kind::Unsupported),
        ("line ends", 75, b"\n", Kind::Corrupt),
        ("capacity", 12, &max, Kind::Corrupt),
        (
            "capacity of 2^53 sectors",
            12,
            &(1u64 << 53).to_le_bytes(),
            Kind::Corrupt,
        ),
        ("grains of 0", 20, &[0; 8], Kind::Corrupt),
        ("grains that are no power of two", 20, &[100], Kind::Corrupt),
        ("grains of 4 GiB", 20, &(1u64 << 23).to_le_bytes(), Kind::Corrupt),
        ("grains of 2^72 bytes", 20, &(1u64 << 63).to_le_bytes(), Kind::Corrupt),
        ("descriptor at the end of all", 28, &max, Kind::Corrupt),
        ("descriptor of 16 EiB", 36, &(1u64 << 55).to_le_bytes(), Kind::Corrupt),
        ("descriptor of 2 MiB", 36, &(1u64 << 12).to_le_bytes(), Kind::Corrupt),
        ("no table entries", 44, &[0; 4], Kind::Corrupt),
        ("many table entries", 44, &[0xff; 4], Kind::Corrupt),
        ("redundant directory", 48, &(1u64 << 40).to_le_bytes(), Kind::Corrupt),
        ("directory on the header", 56, &[0; 8], Kind::Corrupt),
        ("directory past the end", 56, &(1u64 << 20).to_le_bytes(), Kind::Corrupt),
        ("compression", 77, &[2], Kind::Unsupported),
    ];
    for (name, at, bytes, kind) in cases {
        let mut image = images()[0].clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let error = exercise(image).unwrap_or_else(|| panic!("{name} was taken for sound"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[test]
fn a_footer_that_points_to_itself_ends() {
    let mut image = images()[2].clone();
    let footer = image.len() - 1024;
    image[footer + 56..footer + 64].fill(0xff);
    assert_eq!(exercise(image).unwrap().kind(), Kind::Corrupt);
}

/// A disk of 2^62 bytes, all of whose grain tables are one, would take years to walk.
#[test]
fn tables_that_are_shared_are_refused() {
    let mut image = images()[0].clone();
    let put = |image: &mut Vec<u8>, at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let entries = 1u64 << 18;
    let sectors = entries * 512 * 128;
    let directory = image.len().next_multiple_of(512);
    put(&mut image, 12, &sectors.to_le_bytes());
    put(&mut image, 56, &(directory as u64 / 512).to_le_bytes());
    put(&mut image, 8, &5u32.to_le_bytes());
    let text = format!("version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW {sectors} SPARSE \"x\"\n\0");
    put(&mut image, 512, text.as_bytes());
    image.resize(directory, 0);
    let table = u32::from_le_bytes(images()[0][26 * 512..26 * 512 + 4].try_into().unwrap());
    image.extend((0..entries).flat_map(|_| table.to_le_bytes()));
    let error = exercise(image).unwrap();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains("more grain tables"), "{error}");
}
