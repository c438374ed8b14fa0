//! What the fuzz targets share: a file in memory, and a way to read a whole image of it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::{Buf, ReadAt};
use vmferry_image::{BackingRef, Error, ExtentRef, Image, ImageFormat, Kind, Limits, Opener, Source, inspect};

/// The most that a reader of bounded memory asks for at once.
const MOST_AT_ONCE: usize = 8 << 20;

/// Bytes as a file.
pub struct Memory(pub Vec<u8>);

#[async_trait]
impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        assert!(buf.len() <= MOST_AT_ONCE, "{} bytes at once", buf.len());
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let there = self.0.get(offset as usize..end as usize);
        buf.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(buf)
    }
}

/// Whatever file an image names, it is the image itself.
pub struct Mirror(pub Arc<Memory>);

#[async_trait]
impl Opener for Mirror {
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, Error> {
        let format = backing.format.as_deref().unwrap_or("raw").parse();
        let unknown = |_| Error::new(Kind::Unsupported, "open", backing.path.clone());
        Ok(Source::new(&*backing.path, format.map_err(unknown)?, self.0.clone()))
    }

    async fn open_extent(&self, extent: &ExtentRef) -> Result<Source, Error> {
        Ok(Source::new(&*extent.path, extent.format, self.0.clone()))
    }
}

/// Runs a future to its end, with a clock that does not wait.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Opens an image, looks at all that it says, and reads some of it: none of it may panic, hang, or take memory without bound.
pub async fn read_image(format: ImageFormat, bytes: &[u8]) {
    let file = Arc::new(Memory(bytes.to_vec()));
    let opener = Mirror(file.clone());
    let limits = Limits {
        chain: 3,
        cache: 1 << 20,
    };
    let source = Source::new("image", format, file);
    let _ = inspect(source.clone(), &opener, limits).await;
    let Ok(image) = Image::open(source, &opener, limits).await else {
        return;
    };
    let capacity = image.capacity();
    let Ok(map) = image.map().await else { return };
    assert_eq!(map.capacity(), capacity);
    let extents = map.extents();
    let ends = extents.iter().take(4).chain(extents.iter().rev().take(2));
    for extent in ends {
        let first = extent.len.min(100_000) as usize;
        let _ = image.read(extent.start, Buf::alone(first)).await;
        let last = extent.len.min(1000) as usize;
        let _ = image.read(extent.end() - last as u64, Buf::alone(last)).await;
    }
    // What the map leaves out is zeros.
    let gap = extents.first().map_or(capacity, |first| first.start).min(4096) as usize;
    if let Ok(zeros) = image.read(0, Buf::alone(gap)).await {
        assert!(zeros.iter().all(|byte| *byte == 0), "data that is not in the map");
    }
    let _ = image.data_runs().await;
}
