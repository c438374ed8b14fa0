//! Files of this machine, read and written past the page cache where that is possible.
//!
//! Nothing here blocks an async thread. A call whose future is dropped still runs to its end: it owns its buffer.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::OFlags;

use crate::workers::{self, Lanes};
use crate::{AllocationMap, Buf, DirectFile, ReadAt};

/// A file, or block device, to read.
#[derive(Debug)]
pub struct LocalFile {
    file: Arc<DirectFile>,
    lanes: Lanes,
    size: u64,
}

/// A file, or block device, to write at any offset, by several tasks at once.
#[derive(Debug, Clone)]
pub struct LocalFileWriter {
    file: Arc<DirectFile>,
    lanes: Lanes,
}

impl LocalFile {
    /// Opens a file for reading.
    pub async fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        workers::run(move || Self::new(patient(OpenOptions::new().read(true)).open(path)?)).await
    }

    /// Reads a file that was opened for reading by other means: below a directory, say, without following links.
    pub async fn from_file(file: File) -> io::Result<Self> {
        workers::run(move || Self::new(file)).await
    }

    fn new(mut file: File) -> io::Result<Self> {
        check_kind(&file)?;
        // Unlike the metadata, this knows the size of a block device, too.
        let size = file.seek(SeekFrom::End(0))?;
        let lanes = Lanes::of(&file)?;
        let file = Arc::new(DirectFile::reopen(file, OpenOptions::new().read(true)));
        Ok(Self { file, lanes, size })
    }

    /// Which parts of the file are not holes. Where the file system cannot tell, all of it.
    pub async fn data_extents(&self) -> io::Result<AllocationMap> {
        let (file, size) = (Arc::clone(&self.file), self.size);
        self.lanes.run(move || data_extents(file.buffered(), size)).await
    }
}

#[async_trait]
impl ReadAt for LocalFile {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
        let file = Arc::clone(&self.file);
        self.lanes
            .run(move || match file.read_full(offset, &mut buf)? {
                all if all == buf.len() => Ok(buf),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            })
            .await
    }
}

impl LocalFileWriter {
    /// Creates a file that must not exist yet, with permissions for its owner alone.
    pub async fn create_new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        workers::run(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            Self::new(options.open(path)?)
        })
        .await
    }

    /// Opens a file that exists, with all that it holds.
    pub async fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        workers::run(move || Self::new(patient(OpenOptions::new().read(true).write(true)).open(path)?)).await
    }

    /// Writes to a file that was opened for reading and writing by other means.
    pub async fn from_file(file: File) -> io::Result<Self> {
        workers::run(move || Self::new(file)).await
    }

    fn new(file: File) -> io::Result<Self> {
        check_kind(&file)?;
        let lanes = Lanes::of(&file)?;
        let file = Arc::new(DirectFile::reopen(file, OpenOptions::new().read(true).write(true)));
        Ok(Self { file, lanes })
    }

    /// Writes the whole of `buf` at `offset`. Give an `Arc` to keep the buffer for another try.
    pub async fn write_at(&self, offset: u64, buf: impl Into<Arc<Buf>>) -> io::Result<()> {
        let (file, buf) = (Arc::clone(&self.file), buf.into());
        self.lanes.run(move || file.write_all(offset, &buf)).await
    }

    /// Writes the part `range` of `buf` at `offset`.
    pub async fn write_range_at(&self, offset: u64, buf: Arc<Buf>, range: Range<usize>) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        self.lanes
            .run(move || match buf.get(range) {
                Some(bytes) => file.write_all(offset, bytes),
                None => Err(io::ErrorKind::InvalidInput.into()),
            })
            .await
    }

    /// Cuts the file, or grows it with a hole.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        self.lanes.run(move || file.buffered().set_len(len)).await
    }

    /// Waits until all that was written, and the length, is durable.
    pub async fn sync(&self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        self.lanes.run(move || file.buffered().sync_all()).await
    }
}

/// So that opening a pipe without another end does not wait for one. On files it changes nothing.
fn patient(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed())
}

/// Only files and block devices have bytes at offsets.
fn check_kind(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let message = "neither a regular file nor a block device";
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn data_extents(file: &File, size: u64) -> io::Result<AllocationMap> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    let mut map = AllocationMap::builder(size);
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.max(at),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(AllocationMap::full(size)),
            Err(errno) => return Err(errno.into()),
        };
        if start >= size {
            break;
        }
        // A file that shrinks meanwhile has no hole after its data, and no progress may be made either.
        let end = seek(file, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
        if end <= start {
            return Ok(AllocationMap::full(size));
        }
        map.data(start, end - start).map_err(io::Error::other)?;
        at = end;
    }
    Ok(map.build())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::{ALIGN, Extent, Pool};

    /// Direct I/O is refused by some file systems; the build directory is on a disk.
    fn folder() -> TempDir {
        let here = std::env::current_exe().unwrap();
        TempDir::new_in(here.parent().unwrap()).unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn holes_are_found() {
        let folder = folder();
        let path = folder.path().join("disk");
        block_on(async {
            let writer = LocalFileWriter::create_new(&path).await.unwrap();
            writer.set_len(1 << 40).await.unwrap();
            writer.write_at(1 << 30, Buf::copy_of(&vec![1; 65536])).await.unwrap();
            writer.sync().await.unwrap();
            let file = LocalFile::open(&path).await.unwrap();
            let map = file.data_extents().await.unwrap();
            assert_eq!(map.capacity(), 1 << 40);
            assert_eq!(
                map.extents(),
                [Extent {
                    start: 1 << 30,
                    len: 65536
                }]
            );
        });
    }

    #[test]
    fn the_end_is_the_end() {
        let folder = folder();
        let path = folder.path().join("short");
        std::fs::write(&path, vec![9; 5000]).unwrap();
        block_on(async {
            let file = LocalFile::open(&path).await.unwrap();
            let past = file.read_at(0, Buf::alone(8192)).await.unwrap_err();
            assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(&*file.read_at(0, Buf::alone(5000)).await.unwrap(), &[9; 5000]);
        });
    }

    #[test]
    fn what_has_no_offsets_is_refused() {
        block_on(async {
            assert!(LocalFile::open("/dev/null").await.is_err());
            assert!(LocalFile::open(folder().path()).await.is_err());
        });
    }

    #[test]
    fn a_new_file_never_replaces_another() {
        let folder = folder();
        let path = folder.path().join("taken");
        std::fs::write(&path, "mine").unwrap();
        let error = block_on(LocalFileWriter::create_new(&path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn aligned_or_not_the_bytes_are_the_same(
            writes in prop::collection::vec((0usize..50_000, 1usize..40_000, any::<u8>(), any::<bool>()), 1..12),
        ) {
            let folder = folder();
            let path = folder.path().join("file");
            let mut expected = vec![0u8; 100_000];
            block_on(async {
                let pool = Pool::new(65536, 2);
                let writer = LocalFileWriter::create_new(&path).await.unwrap();
                writer.set_len(expected.len() as u64).await.unwrap();
                for (offset, len, byte, align) in writes {
                    let offset = if align { offset / ALIGN * ALIGN } else { offset };
                    let mut buf = pool.take(len).await;
                    buf.fill(byte);
                    expected[offset..offset + len].fill(byte);
                    writer.write_at(offset as u64, buf).await.unwrap();
                    let file = LocalFile::open(&path).await.unwrap();
                    let read = file.read_at(offset as u64 / 4096 * 4096, pool.take(45_000).await).await.unwrap();
                    assert_eq!(&*read, &expected[offset / 4096 * 4096..][..45_000]);
                }
                writer.sync().await.unwrap();
            });
            prop_assert!(std::fs::read(&path).unwrap() == expected);
        }
    }
}
