//! streamOptimized files: what we write is what QEMU takes it for, what QEMU writes we read, and nothing else is taken for whole.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::os::unix::fs::FileExt as _;

use common::random::{Data, content, disk_of, disks, map_of, runs, write};
use common::{Folder, noise};
use proptest::prelude::*;
use vmferry_block::AllocationMap;
use vmferry_image::vmdk::stream::{
    Adapter, Facts, GRAIN, Limits, MAX_CAPACITY, PackedGrain, Packer, Reader, ReaderState, Unpacker, Writer,
    WriterState,
};
use vmferry_image::{Error, Kind};

const COVERED: u64 = 512 * GRAIN;

fn read(file: &[u8], step: usize) -> Result<(Vec<u8>, Facts), Error> {
    let (mut reader, mut unpacker) = (Reader::new("file", Limits::default()), Unpacker::new());
    let (mut disk, mut grains) = (Vec::new(), Vec::new());
    for piece in file.chunks(step) {
        reader.push(piece, &mut grains)?;
        if let Some(capacity) = reader.capacity() {
            disk.resize(capacity as usize, 0);
        }
        for grain in grains.drain(..) {
            unpack(&mut unpacker, &grain, &mut disk)?;
        }
    }
    Ok((disk, reader.finish()?))
}

fn unpack(unpacker: &mut Unpacker, grain: &PackedGrain, disk: &mut [u8]) -> Result<(), Error> {
    let out = &mut disk[grain.guest as usize..][..grain.len as usize];
    assert_eq!(unpacker.unpack(grain, out)?, out.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn qemu_and_we_read_what_we_wrote((capacity, data) in disks(), step in 1u64..40, piece in 1usize..200_000) {
        let (disk, map) = (disk_of(capacity, &data), map_of(capacity, &data));
        let file = write(capacity, &disk, &map, step);
        prop_assert!(file == write(capacity, &disk, &map, 1), "the file depends on how it was cut");
        let folder = Folder::new();
        std::fs::write(folder.path("disk.vmdk"), &file).unwrap();
        std::fs::write(folder.path("disk.raw"), &disk).unwrap();
        folder.qemu_img(&["check", "-f", "vmdk", "disk.vmdk"]);
        folder.qemu_img(&["compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "disk.raw"]);
        let (found, facts) = read(&file, piece).unwrap();
        prop_assert!(found == disk, "other content");
        prop_assert_eq!(facts.len, file.len() as u64);
        prop_assert!(facts.ordered && facts.end_marker);
        prop_assert_eq!(facts.adapter.as_deref(), Some("lsilogic"));
    }

    #[test]
    fn we_read_what_qemu_wrote((capacity, data) in disks(), disorder: bool, piece in 1usize..200_000) {
        let disk = disk_of(capacity, &data);
        let folder = Folder::new();
        std::fs::write(folder.path("disk.raw"), &disk).unwrap();
        let mut args = vec!["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=ide"];
        args.extend(disorder.then_some("-W"));
        args.extend(["disk.raw", "disk.vmdk"]);
        folder.qemu_img(&args);
        let file = std::fs::read(folder.path("disk.vmdk")).unwrap();
        let (found, facts) = read(&file, piece).unwrap();
        prop_assert!(found == disk, "other content");
        prop_assert_eq!(facts.adapter.as_deref(), Some("ide"));
        // A grain less is found by the tables in front, without any end marker.
        if let Some(cut) = last_grain(&file) {
            prop_assert_eq!(read(&file[..cut], 4096).unwrap_err().kind(), Kind::Corrupt);
        }
    }

    #[test]
    fn a_writer_taken_up_goes_on_the_same((capacity, data) in disks(), step in 1u64..20, cut in any::<prop::sample::Index>()) {
        let (disk, map) = (disk_of(capacity, &data), map_of(capacity, &data));
        let whole = write(capacity, &disk, &map, step);
        let runs = runs(&map, step);
        let cut = cut.index(runs.len() + 1);
        let (mut writer, mut out) = (Writer::new(capacity, Adapter::LsiLogic).unwrap(), Vec::new());
        writer.start(&mut out);
        for (number, (start, end)) in runs.into_iter().enumerate() {
            if number == cut {
                let note = serde_json::to_string(&writer.save()).unwrap();
                writer = Writer::restore(&serde_json::from_str(&note).unwrap()).unwrap();
            }
            let run = Packer::new().pack(start, &disk[start as usize..end as usize]);
            writer.append(&run, &mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        prop_assert!(out == whole);
    }

    #[test]
    fn a_reader_taken_up_goes_on_the_same((capacity, data) in disks(), cut in any::<prop::sample::Index>()) {
        let (disk, map) = (disk_of(capacity, &data), map_of(capacity, &data));
        let file = write(capacity, &disk, &map, 8);
        let (mut unpacker, mut grains) = (Unpacker::new(), Vec::new());
        let mut first = Reader::new("file", Limits::default());
        first.push(&file[..cut.index(file.len())], &mut grains).unwrap();
        let note = serde_json::to_string(&first.save()).unwrap();
        let state: ReaderState = serde_json::from_str(&note).unwrap();
        let mut second = Reader::restore("file", Limits::default(), &state).unwrap();
        second.push(&file[state.at as usize..], &mut grains).unwrap();
        let mut found = vec![0; capacity as usize];
        for grain in &grains {
            unpack(&mut unpacker, grain, &mut found).unwrap();
        }
        prop_assert!(found == disk);
        let facts = second.finish().unwrap();
        prop_assert_eq!((facts.len, facts.grains), (file.len() as u64, grains.len() as u64));
    }

    #[test]
    fn a_file_cut_off_is_never_whole((capacity, data) in disks(), cut in any::<prop::sample::Index>()) {
        let (disk, map) = (disk_of(capacity, &data), map_of(capacity, &data));
        let file = write(capacity, &disk, &map, 8);
        let cut = cut.index(file.len());
        // Without the end marker, the footer is the end.
        if cut == file.len() - 512 {
            prop_assert!(!read(&file[..cut], 4096).unwrap().1.end_marker);
        } else {
            prop_assert_eq!(read(&file[..cut], 4096).unwrap_err().kind(), Kind::Corrupt);
        }
    }

    #[test]
    fn a_changed_byte_is_found_or_does_not_matter(
        (capacity, data) in disks(), at in any::<prop::sample::Index>(), bit in 0u32..8
    ) {
        let (disk, map) = (disk_of(capacity, &data), map_of(capacity, &data));
        let mut file = write(capacity, &disk, &map, 8);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        // The header's own numbers decide what the file is: another capacity is another disk.
        if let Ok((found, facts)) = read(&file, 65536) {
            prop_assert!(facts.capacity != capacity || found == disk, "byte {} changed the disk", at);
        }
    }
}

/// Where the last grain of a file of QEMU starts.
fn last_grain(file: &[u8]) -> Option<usize> {
    let (mut reader, mut grains, mut last) = (Reader::new("file", Limits::default()), Vec::new(), None);
    for sector in file.chunks(512) {
        let before = reader.save().at;
        reader.push(sector, &mut grains).unwrap();
        if !grains.is_empty() {
            grains.clear();
            last = Some(before as usize);
        }
    }
    last
}

/// The largest disk with something at both ends, and over the ends of grain tables.
#[test]
fn large_and_sparse() {
    sparse(MAX_CAPACITY);
    // qemu-img looks at every grain that could be.
    let file = sparse(2 << 40);
    let folder = Folder::new();
    std::fs::write(folder.path("disk.vmdk"), file).unwrap();
    folder.qemu_img(&["check", "-f", "vmdk", "disk.vmdk"]);
}

fn sparse(capacity: u64) -> Vec<u8> {
    let mut writer = Writer::new(capacity, Adapter::LsiLogic).unwrap();
    let (mut out, mut packer) = (Vec::new(), Packer::new());
    writer.start(&mut out);
    let data: Data = [0, COVERED - GRAIN, 5 * COVERED - GRAIN, capacity - 2 * GRAIN]
        .into_iter()
        .map(|at| (at, noise(at, 2 * GRAIN as usize)))
        .collect();
    for (at, bytes) in &data {
        writer.append(&packer.pack(*at, bytes), &mut out).unwrap();
    }
    assert!(serde_json::to_string(&writer.save()).unwrap().len() < 2_000_000);
    writer.finish(&mut out).unwrap();
    assert!(out.len() < 10 << 20);
    assert!(writer.len() <= Writer::most(capacity, &map_of(capacity, &data)));
    let (mut reader, mut grains) = (Reader::new("file", Limits::default()), Vec::new());
    reader.push(&out, &mut grains).unwrap();
    assert_eq!(reader.finish().unwrap().grains, 8);
    let guests: Vec<u64> = grains.iter().map(|grain| grain.guest).collect();
    let expected: Vec<u64> = data.iter().flat_map(|(at, _)| [*at, at + GRAIN]).collect();
    assert_eq!(guests, expected);
    out
}

#[test]
fn nothing_that_does_not_fit_is_written() {
    for capacity in [0, 511, 1000, MAX_CAPACITY + 512, u64::MAX] {
        assert_eq!(
            Writer::new(capacity, Adapter::Ide).unwrap_err().kind(),
            Kind::Unsupported
        );
    }
    let mut writer = Writer::new(4 * GRAIN, Adapter::Ide).unwrap();
    let (mut out, mut packer) = (Vec::new(), Packer::new());
    let one = packer.pack(GRAIN, &noise(1, GRAIN as usize));
    assert_eq!(writer.append(&one, &mut out).unwrap_err().kind(), Kind::Bug);
    writer.start(&mut out);
    writer.append(&one, &mut out).unwrap();
    let len = out.len();
    assert_eq!(writer.append(&one, &mut out).unwrap_err().kind(), Kind::Bug);
    let far = packer.pack(4 * GRAIN, &[1]);
    assert_eq!(writer.append(&far, &mut out).unwrap_err().kind(), Kind::Bug);
    assert_eq!((out.len(), writer.len()), (len, len as u64));
}

/// Tables name sectors by 32 bits: the file that grows past them is refused, not wrapped.
#[test]
fn a_file_of_two_tebibytes_is_the_end() {
    let mut writer = Writer::new(3 << 40, Adapter::LsiLogic).unwrap();
    let (mut out, mut packer) = (Vec::new(), Packer::new());
    writer.start(&mut out);
    let mut note = serde_json::to_value(writer.save()).unwrap();
    note["len"] = ((1u64 << 41) - 512).into();
    let state: WriterState = serde_json::from_value(note).unwrap();
    let mut writer = Writer::restore(&state).unwrap();
    writer.append(&packer.pack(0, &vec![1; 65536]), &mut out).unwrap();
    let error = writer
        .append(&packer.pack(GRAIN, &vec![1; 65536]), &mut out)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("2 TiB"), "{error}");
    assert_eq!(writer.finish(&mut out).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_state_of_another_encoder_or_a_damaged_one_is_not_taken_up() {
    let mut writer = Writer::new(64 * COVERED, Adapter::LsiLogic).unwrap();
    let mut out = Vec::new();
    writer.start(&mut out);
    writer
        .append(&Packer::new().pack(COVERED, &vec![1; 65536]), &mut out)
        .unwrap();
    let good = serde_json::to_value(writer.save()).unwrap();
    assert_eq!(
        Writer::restore(&serde_json::from_value(good.clone()).unwrap()),
        Some(writer)
    );
    for (field, value) in [
        ("fingerprint", "streamOptimized/0".into()),
        ("capacity", 512.into()),
        ("adapter", "ide".into()),
        ("len", 1.into()),
        ("len", 0.into()),
        ("len", (1u64 << 63).into()),
        ("current", 64.into()),
        ("next", u64::MAX.into()),
        ("table", "!".into()),
        ("directory", "gICAgICAgIA".into()),
    ] {
        let mut bad: serde_json::Value = good.clone();
        assert_ne!(bad[field], value);
        bad[field] = value;
        assert!(
            Writer::restore(&serde_json::from_value(bad).unwrap()).is_none(),
            "{field}"
        );
    }
}

#[test]
fn what_compresses_is_compressed_and_what_does_not_is_stored() {
    let len = |bytes: &[u8]| Packer::new().pack(0, bytes).bytes().len();
    assert!(len(&content(0, 1, 65536)) <= 1024);
    assert_eq!(len(&noise(1, 65536)), 66048);
    assert_eq!(len(&vec![0; 65536]), 0);
    // Half of each: what is left of the even half is the other half.
    assert!((32768..40000).contains(&len(&content(3, 1, 65536))));
}

/// How grains are packed is part of what a resumed upload relies on: a change of it is seen here, and ends uploads under
/// way.
#[test]
fn packing_is_known() {
    let fingerprint = Writer::new(1 << 20, Adapter::LsiLogic).unwrap().fingerprint();
    assert_eq!(fingerprint, "streamOptimized/1 1048576 lsilogic deflate-abadbd36");
}

/// A disk whose file lost its end to zeros: they say that the stream ends.
#[test]
fn an_end_of_zeros_is_no_end() {
    let mut file = write(
        4 * GRAIN,
        &noise(1, 4 * GRAIN as usize),
        &AllocationMap::full(4 * GRAIN),
        2,
    );
    assert!(read(&file, 4096).is_ok());
    file[65536 + 2 * 66048..].fill(0);
    let error = read(&file, 4096).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

/// A sound file of two grains, at 64 KiB and at 66048 bytes, changed in one place.
fn changed(at: usize, bytes: &[u8]) -> Result<(Vec<u8>, Facts), Error> {
    let disk = noise(1, 2 * GRAIN as usize);
    let mut file = write(2 * GRAIN, &disk, &AllocationMap::full(2 * GRAIN), 2);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    read(&file, 1 << 20)
}

#[test]
fn hostile_and_foreign_files_are_refused() {
    const FIRST: usize = 65536;
    const SECOND: usize = FIRST + 66048;
    assert!(changed(0, b"K").is_ok());
    let cases: [(usize, &[u8], Kind, &str); 12] = [
        (0, b"COWD", Kind::Corrupt, "KDMV"),
        (10, &[0], Kind::Unsupported, "not streamOptimized"),
        (12, &[0xff; 8], Kind::Corrupt, "sectors"),
        (12, &[0, 0, 0, 0, 0, 1, 0, 0], Kind::Unsupported, "are the most here"),
        (FIRST, &256u64.to_le_bytes(), Kind::Corrupt, "claims sector 256"),
        (FIRST, &[0xff; 8], Kind::Corrupt, "claims sector"),
        (FIRST, &[1], Kind::Corrupt, "claims sector 1 "),
        (FIRST + 8, &[0xff; 4], Kind::Corrupt, "claims 4294967295 bytes"),
        (SECOND, &[0], Kind::Corrupt, "comes twice"),
        (SECOND + 66048, &[9], Kind::Corrupt, "announces 9 sectors"),
        (SECOND + 66048 + 12, &[9], Kind::Corrupt, "type 9"),
        (SECOND + 66048 + 512, &[9], Kind::Corrupt, "other grains"),
    ];
    for (at, bytes, kind, part) in cases {
        let error = changed(at, bytes).expect_err(part);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let text = |bytes: &[u8]| changed(512, &[bytes, &[0]].concat()).unwrap_err();
    assert_eq!(text(b"parentCID=12345678\n").kind(), Kind::Unsupported);
    assert_eq!(
        text(b"RW 1 SPARSE \"a\"\nRW 1 SPARSE \"b\"\n").kind(),
        Kind::Unsupported
    );
    assert!(
        changed(FIRST + 100, &[0, 0])
            .unwrap_err()
            .to_string()
            .contains("unpack")
    );
}

/// Who takes a reader up goes on at its place: nothing before that may be still to come.
#[test]
fn no_place_is_ahead_of_what_came() {
    let capacity = 300 * 512 * GRAIN;
    let map = AllocationMap::full(2 * GRAIN);
    let file = write(capacity, &noise(1, 2 * GRAIN as usize), &map, 2);
    let (mut reader, mut grains) = (Reader::new("file", Limits::default()), Vec::new());
    for (count, piece) in file.chunks(100).enumerate() {
        let came = (count * 100 + piece.len()) as u64;
        reader.push(piece, &mut grains).unwrap();
        let at = reader.save().at;
        assert!(at <= came, "at {at} after {came} bytes");
    }
    reader.finish().unwrap();
}

/// vSphere says now and then that it is still there, between two markers of any kind. What comes behind is so much further down.
#[test]
fn a_sign_of_life_is_skipped() {
    let disk = noise(1, 2 * GRAIN as usize);
    let sound = write(2 * GRAIN, &disk, &AllocationMap::full(2 * GRAIN), 2);
    let mut sign = vec![0; 512];
    sign[12] = 4;
    sign[16..24].copy_from_slice(&256u64.to_le_bytes());
    let signs = sign.repeat(4);
    let table = 65536 + 2 * 66048;
    let mut file = sound.clone();
    // A marker and four sectors of table; a marker and the directory; a marker and the footer.
    let (directory, footer) = (table + 5 * 512 + 512, table + 5 * 512 + 2 * 512 + 512);
    for at in [directory, footer + 56] {
        let place = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        file[at..at + 4].copy_from_slice(&(place + 4).to_le_bytes());
    }
    file.splice(table..table, signs);
    let (expected, _) = read(&sound, 4096).unwrap();
    for step in [100, 4096, 1 << 20] {
        let (found, _) = read(&file, step).unwrap();
        assert!(found == expected && found == disk);
    }
}

/// A stream that unpacks to more than a grain is refused, and so is one that unpacks to less.
#[test]
fn a_grain_has_the_length_of_a_grain() {
    let mut deflate = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    for (len, good) in [
        (65536, true),
        (65535, false),
        (65537, false),
        (1 << 20, false),
        (0, false),
    ] {
        let mut packed = vec![0; 8192];
        let size = deflate.zlib_compress(&vec![1; len], &mut packed).unwrap();
        let mut grain = (128u64.to_le_bytes()).to_vec();
        grain.extend((size as u32).to_le_bytes());
        grain.extend(&packed[..size]);
        grain.resize(grain.len().next_multiple_of(512), 0);
        let mut file = write(2 * GRAIN, &vec![0; 131_072], &AllocationMap::full(2 * GRAIN), 2);
        file.splice(65536..65536, grain);
        assert_eq!(read(&file, 4096).is_ok(), good, "{len}");
    }
}

#[test]
fn zeros_after_the_end_are_no_harm_and_anything_else_is() {
    let mut file = write(GRAIN, &noise(1, 65536), &AllocationMap::full(GRAIN), 1);
    file.extend([0; 5000]);
    assert!(read(&file, 777).is_ok());
    file.push(1);
    assert_eq!(read(&file, 777).unwrap_err().kind(), Kind::Corrupt);
}

/// Reads a file of the given size through a hole: the front of a large QEMU file is not kept.
#[test]
fn tables_in_front_of_a_large_disk() {
    let folder = Folder::new();
    let file = std::fs::File::create(folder.path("disk.raw")).unwrap();
    file.set_len(100 << 30).unwrap();
    file.write_all_at(&noise(1, 300_000), 99 << 30).unwrap();
    folder.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        "disk.raw",
        "disk.vmdk",
    ]);
    let file = std::fs::read(folder.path("disk.vmdk")).unwrap();
    let (mut reader, mut grains) = (Reader::new("file", Limits::default()), Vec::new());
    file.chunks(1 << 20)
        .for_each(|piece| reader.push(piece, &mut grains).unwrap());
    assert_eq!(reader.finish().unwrap().grains, 5);
    assert_eq!(grains[0].guest, 99 << 30);
}
