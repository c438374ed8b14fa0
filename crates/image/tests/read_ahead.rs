//! How many reads it takes to map an image in a slow store, and how many of them wait for each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use common::{Folder, block_on, noise};
use vmferry_block::{Buf, ReadAt};
use vmferry_image::{Image, ImageFormat, Limits, NoBacking, Source};

/// A quarter of a tebibyte: four times as much takes four times as many reads.
const SIZE: u64 = 1 << 38;

/// A file that is made up as it is read, by a store that is far away.
struct Far {
    size: u64,
    content: fn(u64) -> [u8; 8],
    reads: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Far {
    fn new(size: u64, content: fn(u64) -> [u8; 8]) -> Arc<Self> {
        Arc::new(Self {
            size,
            content,
            reads: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    /// Maps the image: how many reads there were, and how many at most at once.
    fn map(self: Arc<Self>, format: ImageFormat) -> (usize, usize) {
        block_on(async {
            let image = Image::open(Source::new("far", format, self.clone()), &NoBacking, Limits::default())
                .await
                .unwrap();
            assert_eq!(image.capacity(), SIZE);
            let map = image.map().await.unwrap();
            assert_eq!(map.data_bytes(), SIZE);
        });
        (self.reads.load(SeqCst), self.most.load(SeqCst))
    }
}

#[async_trait]
impl ReadAt for Far {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        assert!(offset.is_multiple_of(8) && buf.len() <= 1 << 20 && offset + buf.len() as u64 <= self.size);
        self.reads.fetch_add(1, SeqCst);
        let now = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
        for (index, word) in buf.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *word = (self.content)(offset + index as u64 * 8);
        }
        self.under_way.fetch_sub(1, SeqCst);
        Ok(buf)
    }
}

const CLUSTER: u64 = 64 << 10;
/// What an L2 table maps.
const SPAN: u64 = CLUSTER / 8 * CLUSTER;

/// The header of a qcow2 image of 256 GiB with its L1 table in cluster 1.
fn qcow2_header(offset: u64) -> [u8; 8] {
    match offset {
        0 => *b"QFI\xfb\0\0\0\x03",
        16 => 16u64.to_be_bytes(),
        24 => SIZE.to_be_bytes(),
        32 => (SIZE / SPAN).to_be_bytes(),
        40 => CLUSTER.to_be_bytes(),
        96 => [0, 0, 0, 4, 0, 0, 0, 104],
        _ => [0; 8],
    }
}

#[test]
fn l2_tables_in_a_row_are_read_together() {
    /// Header, L1, 512 L2 tables, data.
    fn content(offset: u64) -> [u8; 8] {
        let (cluster, within) = (offset / CLUSTER, offset % CLUSTER);
        match cluster {
            0 => qcow2_header(offset),
            1 if within < SIZE / SPAN * 8 => ((2 + within / 8) * CLUSTER).to_be_bytes(),
            2..514 => ((514 + (cluster - 2) * CLUSTER / 8 + within / 8) * CLUSTER).to_be_bytes(),
            _ => [0; 8],
        }
    }
    let far = Far::new(SIZE + 514 * CLUSTER, content);
    let (reads, at_once) = far.map(ImageFormat::Qcow2);
    assert!(reads <= 40, "{reads} reads of 512 tables");
    assert!(at_once >= 4, "{at_once} at once");
}

#[test]
fn l2_tables_between_the_data_are_read_at_the_same_time() {
    /// Header, L1, and 512 times an L2 table and its data.
    fn content(offset: u64) -> [u8; 8] {
        let (cluster, within) = (offset / CLUSTER, offset % CLUSTER);
        match cluster {
            0 => qcow2_header(offset),
            1 if within < SIZE / SPAN * 8 => (2 * CLUSTER + within / 8 * (CLUSTER + SPAN)).to_be_bytes(),
            _ => (offset - within + CLUSTER + within / 8 * CLUSTER).to_be_bytes(),
        }
    }
    let far = Far::new(SIZE + 514 * CLUSTER, content);
    let (reads, at_once) = far.map(ImageFormat::Qcow2);
    assert!(reads <= 530, "{reads} reads of 512 tables");
    assert!(at_once == 16, "{at_once} at once");
}

#[test]
fn grain_tables_in_a_row_are_read_together() {
    const TABLES: u64 = SIZE / (512 * 65536);
    /// Header, descriptor, grain directory, 8192 grain tables of 4 sectors, data.
    fn content(offset: u64) -> [u8; 8] {
        const DIRECTORY: u64 = 8;
        const FIRST: u64 = DIRECTORY + TABLES * 4 / 512;
        const DATA: u64 = FIRST + TABLES * 4;
        let text = b"createType=\"monolithicSparse\"\nRW 536870912 SPARSE \"x\"\n         ";
        let two = |a: u64, b: u64| ((b << 32) | a).to_le_bytes();
        let sector = offset / 512;
        match offset {
            0 => *b"KDMV\x01\0\0\0",
            8 => two(0, SIZE / 512),
            20.. if sector == 1 => {
                let at = (offset - 512) as usize;
                text.get(at..at + 8).map_or([0; 8], |text| text.try_into().unwrap())
            }
            // Fields of 8 bytes at offsets that are odd multiples of 4.
            16 => two(0, 128),
            24 | 32 => two(0, 1),
            40 => two(0, 512),
            56 => two(DIRECTORY, 0),
            _ if (DIRECTORY..FIRST).contains(&sector) => {
                let entry = (offset - DIRECTORY * 512) / 4;
                two(FIRST + entry * 4, FIRST + (entry + 1) * 4)
            }
            _ if (FIRST..DATA).contains(&sector) => {
                let grain = (offset - FIRST * 512) / 4;
                two(DATA + grain * 128, DATA + (grain + 1) * 128)
            }
            _ => [0; 8],
        }
    }
    let far = Far::new(SIZE + (1 << 30), content);
    let (reads, at_once) = far.map(ImageFormat::Vmdk);
    assert!(reads <= 30, "{reads} reads of 16 MiB of tables");
    assert!(at_once >= 4, "{at_once} at once");
}

/// A file in memory that counts its reads.
struct Counted(Vec<u8>, AtomicUsize);

#[async_trait]
impl ReadAt for Counted {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        self.1.fetch_add(1, SeqCst);
        let end = offset as usize + buf.len();
        buf.copy_from_slice(&self.0[offset as usize..end]);
        Ok(buf)
    }
}

#[test]
fn compressed_clusters_in_a_row_are_read_together_and_once() {
    let cases = [
        ("qcow2", &["-c", "-O", "qcow2"][..]),
        ("vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    ];
    for (format, options) in cases {
        let folder = Folder::new();
        let half: Vec<u8> = noise(1, 8 << 20).iter().map(|byte| byte & 0x0f).collect();
        folder.write("disk.raw", &half);
        let name = format!("disk.{format}");
        folder.qemu_img(&[&["convert"], options, &["disk.raw", &name]].concat());
        let file = Arc::new(Counted(std::fs::read(folder.path(&name)).unwrap(), AtomicUsize::new(0)));
        let read = |from: usize, len: usize, step: usize| {
            let source = Source::new("disk", format.parse().unwrap(), file.clone());
            block_on(async {
                let image = Image::open(source, &NoBacking, Limits::default()).await.unwrap();
                image.map().await.unwrap();
                file.1.store(0, SeqCst);
                for at in (from..from + len).step_by(step) {
                    let buf = image.read(at as u64, Buf::alone(step)).await.unwrap();
                    assert!(*buf == half[at..at + step], "other bytes at {at}");
                }
            });
            file.1.load(SeqCst)
        };
        let whole = read(0, 8 << 20, 1 << 20);
        assert!(whole <= 16, "{format}: {whole} reads of 128 clusters");
        // A cluster that is read bit by bit is read and unpacked once.
        let bits = read(65536, 65536, 4096);
        assert_eq!(bits, 1, "{format}");
    }
}
