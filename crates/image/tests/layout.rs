//! Files assembled from their pieces are what QEMU and our own reader take them for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Folder, Memory, assert_content, block_on, noise, write_raw};
use proptest::prelude::*;
use vmferry_block::{AllocationMap, Buf, Extent};
use vmferry_image::{Image, ImageFormat, Layout, Limits, NoBacking, Piece, Source};

const TIB: u64 = 1 << 40;

/// A map of data extents, given as gap before it and length.
fn map_of(capacity: u64, steps: &[(u64, u64)]) -> AllocationMap {
    let mut map = AllocationMap::builder(capacity);
    let mut at = 0;
    for (gap, len) in steps {
        let start = (at + gap).min(capacity);
        let end = (start + len).min(capacity);
        map.data(start, end - start).unwrap();
        at = end;
    }
    map.build()
}

/// Writes the parts of a file in this order, each made on its own.
fn assemble(layout: &Layout, disk: &[u8], part: u64, order: &[usize], write: &mut dyn FnMut(u64, &[u8])) {
    for number in order {
        let range = *number as u64 * part..(*number as u64 + 1) * part;
        let mut at = range.start;
        for piece in layout.pieces(range.clone()) {
            assert_eq!(piece.offset(), at, "a gap, or an overlap");
            assert!(piece.len() > 0);
            at += piece.len();
            match piece {
                Piece::Meta { offset, bytes } => {
                    assert!(bytes.len() <= 65536);
                    write(offset, &bytes);
                }
                Piece::Data { offset, guest, len } => {
                    assert_eq!(layout.file_offset(guest).unwrap().0, offset);
                    assert_eq!(layout.guest_before(offset), guest);
                    write(offset, &disk[guest as usize..(guest + len) as usize]);
                }
                Piece::Zero { .. } => {}
            }
        }
        assert_eq!(at, range.end.min(layout.len()));
    }
}

fn parts(layout: &Layout, part: u64) -> Vec<usize> {
    (0..layout.len().div_ceil(part) as usize).collect()
}

fn cases() -> impl Strategy<Value = (u64, Vec<(u64, u64)>, u64, u64)> {
    let sectors = |range: std::ops::Range<u64>| range.prop_map(|sectors| sectors * 512);
    (
        sectors(1..20_000),
        prop::collection::vec((sectors(0..2000), sectors(1..1000)), 0..12),
        prop_oneof![Just(0), sectors(0..9000)],
        sectors(1..4000),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn qemu_and_we_read_what_was_laid_out(
        (capacity, steps, grown, part) in cases(),
        shuffle in any::<prop::sample::Index>(),
        format in prop_oneof![3 => Just(ImageFormat::Qcow2), 1 => Just(ImageFormat::Raw)],
    ) {
        let map = map_of(capacity, &steps);
        let mut disk = vec![0; capacity as usize];
        for extent in map.extents() {
            disk[extent.start as usize..extent.end() as usize].copy_from_slice(&noise(extent.start, extent.len as usize));
        }
        let layout = Layout::new(format, &map, capacity + grown).unwrap();
        let mut order = parts(&layout, part);
        let middle = shuffle.index(order.len());
        order.rotate_left(middle);
        order[..middle].reverse();

        let folder = Folder::new();
        let file = std::fs::File::create(folder.path("image")).unwrap();
        file.set_len(layout.len()).unwrap();
        assemble(&layout, &disk, part, &order, &mut |offset, bytes| file.write_all_at(bytes, offset).unwrap());
        disk.resize((capacity + grown) as usize, 0);
        std::fs::write(folder.path("disk.raw"), &disk).unwrap();
        if format == ImageFormat::Qcow2 {
            folder.qemu_img(&["check", "-f", "qcow2", "image"]);
        }
        folder.qemu_img(&["compare", "-f", format.as_str(), "-F", "raw", "image", "disk.raw"]);
        block_on(async {
            let image = folder.open("image", format).await.unwrap();
            assert_content(&image, &disk).await;
            if format == ImageFormat::Qcow2 {
                assert_runs(&layout, &image, &map).await;
            }
        });
    }

    #[test]
    fn every_offset_knows_its_guest((capacity, steps, grown, _) in cases(), at in any::<prop::sample::Index>()) {
        let map = map_of(capacity, &steps);
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let layout = Layout::new(format, &map, capacity + grown).unwrap();
            let offset = at.index(layout.len() as usize + 1) as u64;
            let guest = layout.guest_before(offset);
            for extent in map.extents() {
                if extent.start < guest {
                    let last = guest.min(extent.end()) - 1;
                    prop_assert!(layout.file_offset(last).unwrap().0 < offset);
                }
                if extent.end() > guest {
                    prop_assert!(layout.file_offset(guest.max(extent.start)).unwrap().0 >= offset);
                }
            }
        }
    }
}

/// The runs that the reader finds are those that the layout has.
async fn assert_runs(layout: &Layout, image: &Image, map: &AllocationMap) {
    let mut found = AllocationMap::builder(layout.virtual_size());
    for run in image.data_runs().await.unwrap() {
        let (offset, len) = layout.file_offset(run.guest).unwrap();
        assert_eq!(offset, run.file_offset);
        // The last cluster is whole in the file, and the disk may end within it.
        assert!(len == run.len || run.guest + len == map.capacity());
        found.data(run.guest, run.len).unwrap();
    }
    let whole = Layout::new(ImageFormat::Raw, map, layout.virtual_size())
        .unwrap()
        .virtual_size();
    let mut grown = AllocationMap::builder(whole);
    map.extents()
        .iter()
        .for_each(|extent| grown.data(extent.start, extent.len).unwrap());
    assert_eq!(found.build(), grown.build().align(65536));
}

#[test]
fn a_sparse_tebibyte_is_small_and_quick() {
    let started = Instant::now();
    let map = map_of(TIB, &[(5 * 65536, 65536), (TIB / 2, 3 << 20)]);
    let layout = Layout::new(ImageFormat::Qcow2, &map, TIB).unwrap();
    assert!(layout.len() < 4 << 20, "{} bytes", layout.len());
    let mut file = vec![0; layout.len() as usize];
    for piece in layout.pieces(0..u64::MAX) {
        if let Piece::Meta { offset, bytes } = piece {
            file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }
    let found = block_on(async {
        let source = Source::new("sparse", ImageFormat::Qcow2, Arc::new(Memory(file)));
        let image = Image::open(source, &NoBacking, Limits::default()).await.unwrap();
        image.map().await.unwrap()
    });
    assert_eq!(found, map);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn data_on_both_sides_of_the_end_of_a_table() {
    const TABLE: u64 = 512 << 20;
    let capacity = 3 * TABLE + 512;
    let map = map_of(capacity, &[(TABLE - 100_352, 200_704), (2 * TABLE - 100_352, 512)]);
    let data: Vec<_> = map
        .extents()
        .iter()
        .map(|extent| (extent.start, noise(1, extent.len as usize)))
        .collect();
    let layout = Layout::new(ImageFormat::Qcow2, &map, capacity).unwrap();
    let folder = Folder::new();
    write_raw(&folder.path("disk.raw"), capacity, &data);
    let disk = std::fs::File::open(folder.path("disk.raw")).unwrap();
    let pieces = layout.pieces(0..layout.len()).filter_map(|piece| match piece {
        Piece::Meta { offset, bytes } => Some((offset, bytes)),
        Piece::Data { offset, guest, len } => {
            let mut bytes = vec![0; len as usize];
            disk.read_exact_at(&mut bytes, guest).unwrap();
            Some((offset, bytes))
        }
        Piece::Zero { .. } => None,
    });
    write_raw(&folder.path("image"), layout.len(), &pieces.collect::<Vec<_>>());
    folder.qemu_img(&["check", "-f", "qcow2", "image"]);
    folder.qemu_img(&["compare", "-f", "qcow2", "-F", "raw", "image", "disk.raw"]);
    block_on(async {
        let image = folder.open("image", ImageFormat::Qcow2).await.unwrap();
        assert_runs(&layout, &image, &map).await;
        for (offset, bytes) in data {
            let read = image.read(offset, Buf::alone(bytes.len())).await.unwrap();
            assert!(*read == *bytes);
        }
    });
}

#[test]
fn qemu_takes_a_sparse_disk_of_64_tebibytes() {
    let folder = Folder::new();
    let map = map_of(64 * TIB, &[(33 * TIB, 65536)]);
    let layout = Layout::new(ImageFormat::Qcow2, &map, 64 * TIB).unwrap();
    let mut data = Vec::new();
    for piece in layout.pieces(0..layout.len()) {
        if let Piece::Meta { offset, bytes } = piece {
            data.push((offset, bytes));
        }
    }
    write_raw(&folder.path("image"), layout.len(), &data);
    folder.qemu_img(&["check", "-f", "qcow2", "image"]);
    assert_eq!(folder.map("image", 64 * TIB), map);
}

/// Every table of a full disk can be made without making the others: here, some from everywhere in the file.
#[test]
fn a_full_disk_of_64_tebibytes_costs_nothing_to_lay_out() {
    let started = Instant::now();
    let capacity = 64 * TIB;
    let layout = Layout::new(ImageFormat::Qcow2, &AllocationMap::full(capacity), capacity).unwrap();
    assert!(layout.len() > capacity && layout.len() < capacity + capacity / 4096);
    let (data, run) = layout.file_offset(0).unwrap();
    assert_eq!((data + run, run), (layout.len(), capacity));
    for at in (0..layout.len()).step_by((layout.len() / 1000) as usize) {
        let piece = layout.pieces(at..at + (64 << 10)).next().unwrap();
        assert_eq!(piece.offset(), at);
    }
    let last_table = layout.pieces(data - 65536..data).next();
    let Some(Piece::Meta { bytes, .. }) = last_table else {
        panic!("{last_table:?}")
    };
    let last_entry = u64::from_be_bytes(bytes[65528..].try_into().unwrap());
    assert_eq!(last_entry, (1 << 63) | (layout.len() - 65536));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_fingerprint_tells_files_apart() {
    let map = map_of(TIB, &[(65536, 65536)]);
    let of = |format, map: &AllocationMap, size| Layout::new(format, map, size).unwrap().fingerprint();
    let print = of(ImageFormat::Qcow2, &map, TIB);
    assert_eq!(print, of(ImageFormat::Qcow2, &map, TIB));
    assert_eq!(print.len(), "qcow2-".len() + 32);
    let others = [
        of(ImageFormat::Raw, &map, TIB),
        of(ImageFormat::Qcow2, &map, 2 * TIB),
        of(ImageFormat::Qcow2, &map_of(TIB, &[(65536, 2 * 65536)]), TIB),
        of(ImageFormat::Qcow2, &map_of(TIB, &[(2 * 65536, 65536)]), TIB),
    ];
    assert!(!others.contains(&print));
}

#[test]
fn what_cannot_be_laid_out_is_refused() {
    let map = AllocationMap::full(1 << 30);
    let shrunk = Layout::new(ImageFormat::Raw, &map, 1 << 29).unwrap_err();
    assert!(shrunk.to_string().contains("shrink"), "{shrunk}");
    assert!(Layout::new(ImageFormat::Vmdk, &map, 1 << 30).is_err());
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        assert!(Layout::new(format, &map, u64::MAX).is_err());
    }
}

#[test]
fn an_odd_size_loses_no_byte() {
    let map = map_of(1001, &[(0, 1001)]);
    let layout = Layout::new(ImageFormat::Qcow2, &map, 1001).unwrap();
    assert_eq!(layout.virtual_size(), 1024);
    let pieces: Vec<Piece> = layout.pieces(layout.len() - 65536..layout.len()).collect();
    let (data, pad) = (layout.len() - 65536, layout.len() - 65536 + 1001);
    let expected = [
        Piece::Data {
            offset: data,
            guest: 0,
            len: 1001,
        },
        Piece::Zero {
            offset: pad,
            len: 65536 - 1001,
        },
    ];
    assert_eq!(pieces, expected);
    let raw = Layout::new(ImageFormat::Raw, &map, 1001).unwrap();
    assert_eq!((raw.virtual_size(), raw.len()), (1024, 1024));
    assert_eq!(
        raw.pieces(1001..2000).collect::<Vec<_>>(),
        [Piece::Zero { offset: 1001, len: 23 }]
    );
    assert_eq!(map.extents(), [Extent { start: 0, len: 1001 }]);
}
