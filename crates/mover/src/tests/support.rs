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
use crate::{Error, ExportSpec, Import, ImportSpec, Progress, Report};

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

    async fn finish(&self, len: u64) -> Result<(), vmferry_provider::Error> {
        self.order.lock().unwrap().1 = true;
        self.writer.set_len(len).await.unwrap();
        self.writer.sync().await.unwrap();
        Ok(())
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

/// A store that counts the parts that are put, and fails from some call on.
pub(super) struct Faulty {
    inner: Arc<MountedPath>,
    patience: AtomicI64,
    fault: Fault,
    pub(super) puts: Mutex<BTreeMap<u32, usize>>,
}

impl Faulty {
    /// Fails after this many changing calls.
    pub(super) fn new(inner: Arc<MountedPath>, patience: i64, fault: Fault) -> Self {
        Self {
            inner,
            patience: AtomicI64::new(patience),
            fault,
            puts: Mutex::default(),
        }
    }

    async fn change<T>(&self, work: impl Future<Output = Result<T, StagingError>> + Send) -> Result<T, StagingError> {
        let broken = StagingError::new(StagingKind::Unreachable, "reach", "the test's store");
        if self.patience.fetch_sub(1, Ordering::SeqCst) > 0 {
            return work.await;
        }
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
        self.inner.limits()
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
        self.inner.read(key, version, offset, bufs).await
    }
    async fn begin(&self, key: &ObjectKey, len: u64, part_size: u64) -> Result<UploadId, StagingError> {
        self.change(self.inner.begin(key, len, part_size)).await
    }
    async fn parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Uploaded, StagingError> {
        self.inner.parts(key, upload).await
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
        let put = self
            .change(self.inner.put_part(key, upload, number, offset, body))
            .await?;
        *self.puts.lock().unwrap().entry(number).or_default() += 1;
        Ok(put)
    }
    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, StagingError> {
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
    }
}

/// Small parts, so that a small disk has many.
pub(super) const SMALL: Tuning = Tuning {
    part_size: Some(MIB),
    stall: None,
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
        target_format: target,
        target_capacity: capacity,
    }
}

pub(super) async fn import(
    store: Arc<dyn StagingStore>,
    spec: ImportSpec,
    sink: Arc<FileSink>,
) -> Result<Report, Error> {
    let import = Import::open(store, spec).await?;
    import.run(sink, &Progress::default(), &CancellationToken::new()).await
}
