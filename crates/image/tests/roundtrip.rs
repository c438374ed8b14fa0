//! Random disks keep every byte on their way through the formats, whoever converts: qemu-img and we take turns.
//!
//! Each case goes qcow2 → raw → vmdk → qcow2. `Us` reads with [`Image`] or with the in-order reader and writes with [`Layout`] or
//! with the in-order writer; `Qemu` is `qemu-img convert` to one of the forms that it knows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::os::unix::fs::FileExt as _;

use common::{Folder, block_on, noise, write_raw};
use proptest::prelude::*;
use vmferry_block::{AllocationMap, Buf};
use vmferry_image::vmdk::stream::{self, Adapter, GRAIN, Packer, Reader, Unpacker, Writer};
use vmferry_image::{Image, ImageFormat, Layout, Piece};

/// A disk: its sectors, and data as sectors of gap, sectors of length, kind and seed.
#[derive(Debug, Clone)]
struct Recipe {
    sectors: u64,
    pieces: Vec<(u64, u64, u8, u64)>,
}

/// Who does a step, and to which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Our code: at any offset.
    Us,
    /// Our code, with a VMDK read front to back.
    UsInOrder,
    /// qemu-img, with options for qcow2 and for vmdk.
    Qemu(&'static str, &'static str),
}

const PLAIN: By = By::Qemu("compat=1.1", "subformat=streamOptimized");

/// Forms of qemu-img, in pairs. A trailing `-c` compresses.
const FORMS: [By; 8] = [
    PLAIN,
    By::Qemu("compat=0.10", "subformat=monolithicSparse"),
    By::Qemu(
        "compression_type=zlib -c",
        "subformat=streamOptimized,adapter_type=lsilogic",
    ),
    By::Qemu("compression_type=zstd -c", "subformat=twoGbMaxExtentSparse"),
    By::Qemu("cluster_size=512", "subformat=monolithicFlat"),
    By::Qemu("cluster_size=4k,refcount_bits=64", "subformat=twoGbMaxExtentFlat"),
    By::Qemu(
        "cluster_size=2M,extended_l2=on",
        "subformat=monolithicSparse,zeroed_grain=on",
    ),
    By::Qemu("extended_l2=on", "subformat=streamOptimized"),
];

const WAY: [ImageFormat; 4] = [
    ImageFormat::Qcow2,
    ImageFormat::Raw,
    ImageFormat::Vmdk,
    ImageFormat::Qcow2,
];

impl Recipe {
    fn capacity(&self) -> u64 {
        self.sectors * 512
    }

    /// The data in order, as offset and bytes.
    fn data(&self) -> Vec<(u64, Vec<u8>)> {
        let (mut at, mut data) = (0, Vec::new());
        for (gap, len, kind, seed) in &self.pieces {
            let start = at + gap * 512;
            let len = (len * 512).min(self.capacity().saturating_sub(start));
            if len == 0 {
                break;
            }
            data.push((start, content(*kind, *seed, len as usize)));
            at = start + len;
        }
        data
    }
}

/// Noise, text, a byte over and over, zeros that are data, or a mixture in blocks of 512 bytes.
fn content(kind: u8, seed: u64, len: usize) -> Vec<u8> {
    match kind % 5 {
        0 => noise(seed, len),
        1 => format!("line {seed} of some text, ")
            .into_bytes()
            .into_iter()
            .cycle()
            .take(len)
            .collect(),
        2 => vec![seed as u8 | 1; len],
        3 => vec![0; len],
        _ => {
            let mut bytes = noise(seed, len);
            bytes
                .chunks_mut(512)
                .skip((seed % 3) as usize)
                .step_by(3)
                .for_each(|block| block.fill(0));
            bytes
        }
    }
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let gap = prop_oneof![Just(0u64), 1u64..64, 1u64..4000];
    let len = prop_oneof![1u64..16, 1u64..300, 1u64..3000];
    // No multiple of a grain or of a cluster, a multiple, and one more or less.
    let sectors = prop_oneof![2 => 1u64..16_384, 1 => (1u64..128).prop_map(|n| n * 128), 1 => (1u64..64).prop_map(|n| n * 128 + 1)];
    let pieces = prop::collection::vec((gap, len, any::<u8>(), any::<u64>()), 0..10);
    (sectors, pieces).prop_map(|(sectors, pieces)| Recipe { sectors, pieces })
}

/// Takes a disk along the way, each step by whom it says, and compares at the end.
fn travel(recipe: &Recipe, by: [By; 4]) {
    let (folder, capacity) = (Folder::new(), recipe.capacity());
    write_raw(&folder.path("disk.raw"), capacity, &recipe.data());
    let mut from = ("disk.raw".to_owned(), ImageFormat::Raw);
    for (number, (format, by)) in WAY.into_iter().zip(by).enumerate() {
        let to = format!("step{number}.{format}");
        match by {
            By::Qemu(qcow2, vmdk) => convert(&folder, &from, &to, format, qcow2, vmdk),
            By::UsInOrder if from.1 == ImageFormat::Vmdk => in_order(&folder, &from.0, &to, format),
            _ => block_on(ours(&folder, &from, &to, format)),
        }
        // Of ours, everything has to be in its place.
        if !matches!(by, By::Qemu(..)) && format != ImageFormat::Raw {
            folder.qemu_img(&["check", "-f", format.as_str(), &to]);
        }
        from = (to, format);
    }
    folder.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "disk.raw", &from.0]);
    let expected = std::fs::read(folder.path("disk.raw")).unwrap();
    block_on(async {
        let image = folder.open(&from.0, from.1).await.unwrap();
        assert_eq!(image.capacity(), capacity);
        assert!(read(&image, 0, capacity).await == expected, "other content");
    });
}

fn convert(folder: &Folder, from: &(String, ImageFormat), to: &str, format: ImageFormat, qcow2: &str, vmdk: &str) {
    let mut args = vec!["convert", "-f", from.1.as_str(), "-O", format.as_str()];
    match format {
        ImageFormat::Raw => {}
        ImageFormat::Vmdk => args.extend(["-o", vmdk]),
        ImageFormat::Qcow2 => {
            let mut words = qcow2.split(' ');
            args.extend(["-o", words.next().unwrap()]);
            args.extend(words);
        }
    }
    args.extend([&from.0, to]);
    folder.qemu_img(&args);
}

async fn read(image: &Image, at: u64, len: u64) -> Vec<u8> {
    image.read(at, Buf::alone(len as usize)).await.unwrap().to_vec()
}

/// Converts with random access.
async fn ours(folder: &Folder, from: &(String, ImageFormat), to: &str, format: ImageFormat) {
    let image = folder.open(&from.0, from.1).await.unwrap();
    let (map, capacity) = (image.map().await.unwrap(), image.capacity());
    if format == ImageFormat::Vmdk {
        let mut packer = Packer::new();
        let mut writer = Writer::new(capacity, Adapter::default()).unwrap();
        let mut file = Vec::new();
        writer.start(&mut file);
        for extent in map.align(GRAIN).extents() {
            let mut at = extent.start;
            while at < extent.end() {
                let len = (extent.end() - at).min(5 * GRAIN);
                let run = packer.pack(at, &read(&image, at, len).await);
                writer.append(&run, &mut file).unwrap();
                at += len;
            }
        }
        writer.finish(&mut file).unwrap();
        assert!(file.len() as u64 <= Writer::most(capacity, &map));
        std::fs::write(folder.path(to), file).unwrap();
        return;
    }
    let layout = Layout::new(format, &map, capacity).unwrap();
    let file = std::fs::File::create(folder.path(to)).unwrap();
    file.set_len(layout.len()).unwrap();
    for piece in layout.pieces(0..layout.len()) {
        match piece {
            Piece::Meta { offset, bytes } => file.write_all_at(&bytes, offset).unwrap(),
            Piece::Data { offset, guest, len } => file.write_all_at(&read(&image, guest, len).await, offset).unwrap(),
            Piece::Zero { .. } => {}
        }
    }
}

/// Converts a VMDK that is read front to back, in bits of every size.
fn in_order(folder: &Folder, from: &str, to: &str, format: ImageFormat) {
    let file = std::fs::read(folder.path(from)).unwrap();
    let (mut reader, mut unpacker) = (Reader::new(from, stream::Limits::default()), Unpacker::new());
    let (mut grains, mut data) = (Vec::new(), Vec::new());
    let mut rest = file.as_slice();
    for step in [1, 511, 70_000, 512, 1 << 20].into_iter().cycle() {
        let (piece, more) = rest.split_at(rest.len().min(step));
        reader.push(piece, &mut grains).unwrap();
        for grain in grains.drain(..) {
            let mut bytes = vec![0xee; grain.len as usize];
            assert_eq!(unpacker.unpack(&grain, &mut bytes).unwrap(), bytes.len());
            data.push((grain.guest, bytes));
        }
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    let facts = reader.finish().unwrap();
    let raw = format!("{from}.raw");
    write_raw(&folder.path(&raw), facts.capacity, &data);
    let mut map = AllocationMap::builder(facts.capacity);
    data.sort_unstable_by_key(|(at, _)| *at);
    for (at, bytes) in &data {
        map.data(*at, bytes.len() as u64).unwrap();
    }
    assert_eq!(
        map.build().data_bytes(),
        data.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
    );
    block_on(ours(folder, &(raw, ImageFormat::Raw), to, format));
}

/// Any form of QEMU's, or ours.
fn any_hand() -> impl Strategy<Value = By> {
    prop_oneof![2 => Just(By::Us), 1 => Just(By::UsInOrder), 4 => prop::sample::select(&FORMS[..])]
}

/// The last step can read in order what is a stream only.
fn fitting(mut by: [By; 4]) -> [By; 4] {
    let stream = !matches!(by[2], By::Qemu(_, vmdk) if !vmdk.contains("streamOptimized"));
    if by[3] == By::UsInOrder && !stream {
        by[3] = By::Us;
    }
    by
}

macro_rules! ways {
    ($($(#[$doc:meta])* $name:ident: $by:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(50) })]
            $($(#[$doc])* #[test] fn $name(recipe in recipes(), by in $by) { travel(&recipe, fitting(by)); })*
        }
    };
}

ways! {
    /// We write what QEMU reads and the other way round.
    turns_that_qemu_begins: Just([PLAIN, By::Us, PLAIN, By::Us]);
    turns_that_we_begin: Just([By::Us, PLAIN, By::Us, PLAIN]);
    in_order_after_qemu: Just([PLAIN, PLAIN, PLAIN, By::UsInOrder]);
    all_by_us: Just([By::Us, By::Us, By::Us, By::UsInOrder]);
    any_hands: [any_hand(), any_hand(), any_hand(), any_hand()];
    any_forms_read_by_us: prop::sample::select(&FORMS[..]).prop_map(|form| [form, By::Us, form, By::Us]);
    any_forms_made_of_ours: prop::sample::select(&FORMS[..]).prop_map(|form| [By::Us, form, By::Us, form]);
}
