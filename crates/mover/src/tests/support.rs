//! Real disks, a real staging folder, real volume files; and a store that fails on purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use vmferry_block::{AllocationMap, Buf, LocalFile, LocalFileWriter};
use vmferry_image::{Image, ImageFormat, Limits, NoBacking, Source};
use vmferry_provider::{DiskSink, DiskSource};
use vmferry_staging::nfs::MountedPath;
use vmferry_staging::{Error as StagingError, Kind as StagingKind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits};
use vmferry_staging::{StagingStore, UploadId, Uploaded};

use crate::export::{Tuning, export_tuned};
use crate::{Error, ExportSpec, Import, ImportSpec, Progress, Report, TargetForm};

pub(super) use tokio_util::sync::CancellationToken;

pub(super) const MIB: u64 = 1 << 20;

/// A folder with everything of a test.
pub(super) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("staging")).unwrap();
        Self { folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn store(&self) -> Arc<MountedPath> {
        Arc::new(MountedPath::new(self.path("staging")).unwrap())
    }

    /// A raw disk with pseudo-random data in these extents.
    pub(super) fn disk(&self, name: &str, capacity: u64, extents: &[(u64, u64)], seed: u64) -> PathBuf {
        use std::os::unix::fs::FileExt as _;
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(capacity).unwrap();
        for (index, (start, len)) in extents.iter().enumerate() {
            file.write_all_at(&noise(seed + index as u64, *len as usize), *start)
                .unwrap();
        }
        path
    }

    /// Everything in the staging folder.
    pub(super) fn staged(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                found.push(entry.file_name().into_string().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("staging"), &mut found);
        found.sort();
        found
    }
}

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut word)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(len);
    bytes
}

pub(super) fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether an image is sound and holds the disk.
pub(super) fn same_disk(image: &Path, format: ImageFormat, raw: &Path) {
    let image = image.to_str().unwrap();
    if format == ImageFormat::Qcow2 {
        qemu_img(&["check", "-f", "qcow2", image]);
    }
    qemu_img(&[
        "compare",
        "-f",
        format.as_str(),
        "-F",
        "raw",
        image,
        raw.to_str().unwrap(),
    ]);
}

/// A disk image of this machine as a source.
pub(super) struct FileSource {
    image: Image,
    /// What `finish` says, and how often a byte was read.
    pub(super) gone: AtomicBool,
    pub(super) bytes: AtomicUsize,
}

impl FileSource {
    pub(super) async fn open(path: &Path, format: ImageFormat) -> Arc<Self> {
        let file = LocalFile::open(path).await.unwrap();
        let holes = file.data_extents().await.unwrap();
        let image = match format {
            ImageFormat::Raw => Image::raw("disk", Arc::new(file), holes),
            _ => Image::open(
                Source::new("disk", format, Arc::new(file)),
                &NoBacking,
                Limits::default(),
            )
            .await
            .unwrap(),
        };
        Arc::new(Self {
            image,
            gone: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
        })
    }

    pub(super) async fn raw(path: &Path) -> Arc<Self> {
        Self::open(path, ImageFormat::Raw).await
    }
}

fn failed(error: vmferry_image::Error) -> vmferry_provider::Error {
    vmferry_provider::Error::new(vmferry_provider::Kind::Failed, "read", "the test's disk").source(error)
}

#[async_trait]
impl DiskSource for FileSource {
    fn capacity(&self) -> u64 {
        self.image.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, vmferry_provider::Error> {
        self.image.map().await.map_err(failed)
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, vmferry_provider::Error> {
        self.bytes.fetch_add(buf.len(), Ordering::Relaxed);
        self.image.read(offset, buf).await.map_err(failed)
    }

    async fn finish(&self) -> Result<(), vmferry_provider::Error> {
        if self.gone.load(Ordering::Relaxed) {
            let kind = vmferry_provider::Kind::FrozenStateGone;
            return Err(vmferry_provider::Error::new(kind, "read", "the test's disk").detail("the job ended"));
        }
        Ok(())
    }
}

/// A volume file of this machine as a sink. It checks what the port promises about the order of writes.
pub(super) struct FileSink {
    writer: LocalFileWriter,
    concurrency: usize,
    under_way: AtomicUsize,
    order: Mutex<(u64, bool)>,
}

impl FileSink {
    pub(super) async fn create(path: &Path, concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            writer: LocalFileWriter::create_new(path).await.unwrap(),
            concurrency,
            under_way: AtomicUsize::new(0),
            order: Mutex::new((0, false)),
        })
    }

    /// Empties a file that may be there.
    pub(super) async fn anew(path: &Path, concurrency: usize) -> Arc<Self> {
        drop(std::fs::File::create(path).unwrap());
        Self::reopen(path, concurrency, 0).await
    }

    /// Goes on behind the first `kept` bytes of a file that is there.
    pub(super) async fn reopen(path: &Path, concurrency: usize, kept: u64) -> Arc<Self> {
        let writer = LocalFileWriter::open(path).await.unwrap();
        writer.set_len(kept).await.unwrap();
        Arc::new(Self {
            writer,
            concurrency,
            under_way: AtomicUsize::new(0),
            order: Mutex::new((kept, false)),
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.order.lock().unwrap().1
    }
}

#[async_trait]
impl DiskSink for FileSink {
    fn concurrency(&self) -> usize {
        self.concurrency
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), vmferry_provider::Error> {
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        assert!(others < self.concurrency, "{others} writes are under way already");
        {
            let mut order = self.order.lock().unwrap();
            assert!(self.concurrency > 1 || offset >= order.0, "{offset} after {}", order.0);
            assert!(!order.1, "a write after the end");
            order.0 = offset + buf.len() as u64;
        }
        self.writer.write_at(offset, buf).await.unwrap();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    async fn flush(&self) -> Result<bool, vmferry_provider::Error> {
        self.writer.sync().await.unwrap();
        Ok(self.concurrency > 1)
    }

    async fn finish(&self, len: u64) -> Result<(), vmferry_provider::Error> {
        self.order.lock().unwrap().1 = true;
        self.writer.set_len(len).await.unwrap();
        self.writer.sync().await.unwrap();
        Ok(())
    }
}

/// A sink one of whose writes hangs and then fails.
pub(super) struct LateFailure {
    inner: Arc<FileSink>,
    /// Writes before that one.
    before: AtomicUsize,
    after: std::time::Duration,
}

impl LateFailure {
    pub(super) fn new(inner: Arc<FileSink>, before: usize, after: std::time::Duration) -> Arc<Self> {
        let before = AtomicUsize::new(before);
        Arc::new(Self { inner, before, after })
    }
}

#[async_trait]
impl DiskSink for LateFailure {
    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), vmferry_provider::Error> {
        if self.before.fetch_sub(1, Ordering::SeqCst) == 0 {
            tokio::time::sleep(self.after).await;
            let kind = vmferry_provider::Kind::Failed;
            return Err(vmferry_provider::Error::new(kind, "write", "the test's volume").detail("EIO"));
        }
        self.inner.write(offset, buf).await
    }

    async fn flush(&self) -> Result<bool, vmferry_provider::Error> {
        self.inner.flush().await
    }

    async fn finish(&self, len: u64) -> Result<(), vmferry_provider::Error> {
        self.inner.finish(len).await
    }
}

/// What a [`Faulty`] store does at the end of its patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Every call fails, and does nothing.
    Before,
    /// Every call does its work and fails.
    After,
    /// Every call waits for ever.
    Hang,
}

/// How a [`Faulty`] store takes parts.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways {
    /// Parts under way at once; 0 is as many as the store below takes.
    pub(super) in_flight: u32,
    /// The parts that arrived, where it lists them: this survives a process, as a store does.
    pub(super) listed: Option<Arc<Mutex<BTreeMap<u32, Part>>>>,
    /// Of how many changing calls one fails from time to time, once its patience has ended; 0 for all of them.
    pub(super) one_of: i64,
    /// Whether it dies in the completion, between the link to the object's name and the removal of the hidden one.
    pub(super) dies_linked: bool,
}

/// A store that counts the parts that are put, and fails from some call on.
pub(super) struct Faulty {
    inner: Arc<MountedPath>,
    patience: AtomicI64,
    fault: Fault,
    ways: Ways,
    /// Reads of content that succeed, before every second one fails.
    reads: AtomicI64,
    /// Bytes that were read.
    pub(super) read: AtomicUsize,
    faults: AtomicUsize,
    /// How often each part was sent.
    pub(super) puts: Mutex<BTreeMap<u32, usize>>,
}

impl Faulty {
    /// Fails after this many changing calls.
    pub(super) fn new(inner: Arc<MountedPath>, patience: i64, fault: Fault) -> Self {
        Self {
            inner,
            patience: AtomicI64::new(patience),
            fault,
            ways: Ways::default(),
            reads: AtomicI64::new(i64::MAX),
            read: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            puts: Mutex::default(),
        }
    }

    pub(super) fn with(self, ways: Ways) -> Self {
        Self { ways, ..self }
    }

    /// Every second read of content fails, after so many.
    pub(super) fn fails_to_read(self, after: i64) -> Self {
        self.reads.store(after, Ordering::SeqCst);
        self
    }

    /// How many calls failed on purpose.
    pub(super) fn faults(&self) -> usize {
        self.faults.load(Ordering::SeqCst)
    }

    async fn change<T>(&self, work: impl Future<Output = Result<T, StagingError>> + Send) -> Result<T, StagingError> {
        let broken = StagingError::new(StagingKind::Unreachable, "reach", "the test's store");
        let left = self.patience.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || (self.ways.one_of > 0 && left % self.ways.one_of != 0) {
            return work.await;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Before => Err(broken),
            Fault::After => work.await.and(Err(broken)),
            Fault::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl StagingStore for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn url(&self, key: &ObjectKey) -> String {
        self.inner.url(key)
    }
    fn limits(&self) -> PartLimits {
        let limits = self.inner.limits();
        let in_flight = self.ways.in_flight.max(limits.in_flight);
        PartLimits { in_flight, ..limits }
    }
    async fn check(&self, need: u64) -> Result<Vec<String>, StagingError> {
        self.inner.check(need).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StagingError> {
        self.inner.head(key).await
    }
    async fn read(
        &self,
        key: &ObjectKey,
        version: &str,
        offset: u64,
        bufs: Vec<Buf>,
    ) -> Result<Vec<Buf>, StagingError> {
        // Tables are read into one buffer, the content into several.
        let left = match bufs.len() {
            1 => i64::MAX,
            _ => self.reads.fetch_sub(1, Ordering::SeqCst),
        };
        if left <= 0 && left % 2 == 0 {
            self.faults.fetch_add(1, Ordering::SeqCst);
            if self.fault == Fault::Hang {
                std::future::pending::<()>().await;
            }
            return Err(StagingError::new(StagingKind::Unreachable, "reach", "the test's store"));
        }
        let bufs = self.inner.read(key, version, offset, bufs).await?;
        self.read
            .fetch_add(bufs.iter().map(|buf| buf.len()).sum(), Ordering::SeqCst);
        Ok(bufs)
    }
    async fn begin(&self, key: &ObjectKey, len: u64, part_size: u64) -> Result<UploadId, StagingError> {
        self.change(self.inner.begin(key, len, part_size)).await
    }
    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, StagingError> {
        let parts = self.inner.parts(key, upload).await?;
        Ok(match &self.ways.listed {
            Some(listed) if parts == Uploaded::Unlisted => {
                Uploaded::Parts(listed.lock().unwrap().values().cloned().collect())
            }
            _ => parts,
        })
    }
    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: PartBody,
    ) -> Result<Part, StagingError> {
        // Parts end out of order.
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(number * 7 % 5))).await;
        let put = async {
            *self.puts.lock().unwrap().entry(number).or_default() += 1;
            let part = self.inner.put_part(key, upload, number, offset, body).await?;
            if let Some(listed) = &self.ways.listed {
                listed.lock().unwrap().insert(number, part.clone());
            }
            Ok(part)
        };
        self.change(put).await
    }
    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, StagingError> {
        if self.ways.dies_linked {
            let url = self.inner.url(key);
            let object = Path::new(url.strip_prefix("nfs://").unwrap());
            let name = object.file_name().unwrap().to_str().unwrap();
            let hidden = object.with_file_name(format!(".{name}.{}.part", upload.0));
            std::fs::File::options()
                .write(true)
                .open(&hidden)
                .unwrap()
                .set_len(len)
                .unwrap();
            std::fs::hard_link(hidden, object).unwrap();
            return Err(StagingError::new(StagingKind::Unreachable, "reach", "the test's store"));
        }
        self.change(self.inner.complete(key, upload, len, parts)).await
    }
    async fn abort(&self, key: &ObjectKey) -> Result<(), StagingError> {
        self.change(self.inner.abort(key)).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), StagingError> {
        self.change(self.inner.delete(key)).await
    }
    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, StagingError> {
        self.inner.note(key).await
    }
    async fn put_note(&self, key: &ObjectKey, text: &str) -> Result<(), StagingError> {
        self.change(self.inner.put_note(key, text)).await
    }
    async fn delete_note(&self, key: &ObjectKey) -> Result<(), StagingError> {
        self.change(self.inner.delete_note(key)).await
    }
}

pub(super) fn spec(format: ImageFormat, frozen: &str) -> ExportSpec {
    ExportSpec {
        object: "ns/migration/disk-0".parse().unwrap(),
        owner: "uid-1".to_owned(),
        frozen: frozen.to_owned(),
        format,
        memory: 64 * MIB,
    }
}

/// Small parts, so that a small disk has many; and no patience, so that every failure is seen.
pub(super) const SMALL: Tuning = Tuning {
    part_size: Some(MIB),
    stall: None,
    patience: Some((0, std::time::Duration::ZERO)),
};

pub(super) async fn export(source: &FileSource, store: &dyn StagingStore, spec: &ExportSpec) -> Result<Report, Error> {
    export_tuned(
        source,
        store,
        spec,
        &Progress::default(),
        &CancellationToken::new(),
        SMALL,
    )
    .await
}

pub(super) fn import_spec(export: &ExportSpec, report: &Report, capacity: u64, target: ImageFormat) -> ImportSpec {
    ImportSpec {
        object: export.object.clone(),
        staged_format: export.format,
        checksum: report.checksum,
        content_digest: report.content_digest,
        capacity,
        form: TargetForm::Volume {
            format: target,
            capacity,
        },
        volume: "pool/volume".to_owned(),
        memory: 64 * MIB,
    }
}

pub(super) async fn import(
    store: Arc<dyn StagingStore>,
    spec: ImportSpec,
    sink: Arc<FileSink>,
) -> Result<Report, Error> {
    let cancel = CancellationToken::new();
    let import = Import::open(store, spec, &cancel).await?;
    import.run(sink, &Progress::default(), &cancel).await
}
