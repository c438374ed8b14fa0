//! What the tests of this crate share: images made by qemu-img, and files that watch how they are read.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod random;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use vmferry_block::{AllocationMap, Buf, LocalFile, ReadAt};
use vmferry_image::{
    BackingRef, Depth, Error, ExtentRef, Image, ImageFormat, Kind, Limits, NoBacking, Opener, Source, check,
};

/// A folder of images that goes away with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs qemu-img in the folder and gives its output.
    pub fn qemu_img(&self, args: &[&str]) -> String {
        self.run("qemu-img", args)
    }

    /// Runs commands of qemu-io on an image whose format its extension says.
    pub fn qemu_io(&self, image: &str, commands: &[&str]) {
        let mut args = vec!["-f", format_of(image)];
        args.extend(commands.iter().flat_map(|command| ["-c", command]));
        args.push(image);
        let output = self.run("qemu-io", &args);
        assert!(!output.contains("failed"), "{output}");
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program)
            .args(args)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{program} {args:?}\n{out}{err}");
        out.into_owned()
    }

    /// Opens an image with its chain.
    pub async fn open(&self, name: &str, format: ImageFormat) -> Result<Image, Error> {
        let file = Arc::new(LocalFile::open(self.path(name)).await.unwrap());
        Image::open(Source::new(name, format, file), self, Limits::default()).await
    }

    /// What a guest sees of an image, by qemu-img.
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.qemu_img(&["convert", "-f", format_of(name), "-O", "raw", name, "content.raw"]);
        std::fs::read(self.path("content.raw")).unwrap()
    }

    /// Where an image has data, by qemu-img.
    pub fn map(&self, name: &str, capacity: u64) -> AllocationMap {
        let json = self.qemu_img(&["map", "--output=json", "-f", format_of(name), name]);
        let extents: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        let mut map = AllocationMap::builder(capacity);
        // Of plain files, qemu-img says data of holes, too.
        let plain_holes = format_of(name) != "qcow2";
        let data = |extent: &serde_json::Value| extent["data"] == true && !(plain_holes && extent["zero"] == true);
        for extent in extents.iter().filter(|extent| data(extent)) {
            let (start, len) = (extent["start"].as_u64().unwrap(), extent["length"].as_u64().unwrap());
            map.data(start, len).unwrap();
        }
        map.build()
    }
}

/// The format that a name's extension says: qcow2 without one.
fn format_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("qcow2", |(_, extension)| extension)
}

#[async_trait]
impl Opener for Folder {
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, Error> {
        let format = backing.format.as_deref().unwrap().parse().unwrap();
        self.source(&backing.path, format).await
    }

    async fn open_extent(&self, extent: &ExtentRef) -> Result<Source, Error> {
        self.source(&extent.path, extent.format).await
    }
}

impl Folder {
    async fn source(&self, name: &str, format: ImageFormat) -> Result<Source, Error> {
        let missing = || Error::new(Kind::Missing, "open", name);
        let file = LocalFile::open(self.path(name)).await.map_err(|_| missing())?;
        let holes = Some(file.data_extents().await.unwrap()).filter(|_| format == ImageFormat::Raw);
        Ok(Source {
            name: name.to_owned(),
            format,
            file: Arc::new(file),
            holes,
        })
    }
}

/// A file in memory. It refuses to read more at once than a reader of bounded memory would ask for.
pub struct Memory(pub Vec<u8>);

#[async_trait]
impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        assert!(buf.len() <= 4 << 20, "{} bytes at once", buf.len());
        let end = offset
            .checked_add(buf.len() as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let there = self
            .0
            .get(offset as usize..end as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(there);
        Ok(buf)
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Bytes that do not compress and differ at every offset.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Reads the whole disk in pieces of odd sizes and checks that what the map leaves out is zeros.
pub async fn assert_content(image: &Image, expected: &[u8]) {
    assert_eq!(image.capacity(), expected.len() as u64);
    let mut at = 0;
    for step in [1000, 65536, 300_000, 7, 1 << 20, 4096].into_iter().cycle() {
        let len = step.min(expected.len() - at);
        let buf = image.read(at as u64, Buf::copy_of(&vec![0xee; len])).await.unwrap();
        assert!(*buf == expected[at..at + len], "other bytes within {at}..{}", at + len);
        at += len;
        if at == expected.len() {
            break;
        }
    }
    let mut hole = 0;
    for extent in image.map().await.unwrap().extents() {
        assert!(
            is_zero(&expected[hole..extent.start as usize]),
            "data missing from the map"
        );
        hole = extent.end() as usize;
    }
    assert!(is_zero(&expected[hole..]), "data missing from the end of the map");
}

pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole pages are compared at once: byte by byte takes a debug build seconds.
    bytes.chunks(4096).all(|page| page == &[0; 4096][..page.len()])
}

/// Writes a sparse raw file.
pub fn write_raw(path: &Path, len: u64, data: &[(u64, Vec<u8>)]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

/// Opens, maps, reads and checks what can be; whether it came out is of no interest here.
pub fn exercise(format: ImageFormat, image: Vec<u8>) -> Option<Error> {
    block_on(async {
        let work = async {
            let source = Source::new("image", format, Arc::new(Memory(image)));
            // What a check finds is no error of the check.
            if let Err(error) = check(source.clone(), &NoBacking, Limits::default(), Depth::Content).await {
                assert_ne!(error.kind(), Kind::Bug, "{error}");
            }
            let image = Image::open(source, &NoBacking, Limits::default()).await?;
            let map = image.map().await?;
            if let Ok(runs) = image.data_runs().await {
                assert!(
                    runs.windows(2)
                        .all(|pair| pair[0].file_offset + pair[0].len <= pair[1].file_offset)
                );
            }
            for at in [0, 1000, 200_000, u64::MAX] {
                let at = at.min(image.capacity().saturating_sub(70_000));
                let len = (image.capacity() - at).min(70_000);
                image.read(at, Buf::alone(len as usize)).await?;
            }
            assert!(map.capacity() == image.capacity());
            Ok(())
        };
        let result = tokio::time::timeout(Duration::from_secs(10), work).await;
        result.expect("it hangs").err()
    })
}
