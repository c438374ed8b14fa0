//! From staging into a volume.

mod staged;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, ContentDigest, Digest, ObjectHash, Pool};
use vmferry_image::{DataRun, Image, ImageFormat, Layout, Limits, NoBacking, Source};
use vmferry_provider::DiskSink;
use vmferry_staging::{ObjectKey, ObjectMeta, StagingStore};

use crate::chunk::{CHUNK, Chunk, Span, feed};
use crate::error::{self, staging};
use crate::hasher::{Hasher, Hashes, died};
use crate::progress::Progress;
use crate::{Error, Kind, Report};
use staged::StagedFile;
use write::Writer;

/// Chunks that are read, hashed or written at one time, at most.
const CHUNKS: usize = 32;
/// How long nothing may move.
const STALL: Duration = Duration::from_mins(1);
/// How long the target may take to make the volume durable.
const CLOSING: Duration = Duration::from_mins(15);

/// What is imported, and into what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSpec {
    /// The staged object.
    pub object: ObjectKey,
    /// Its format.
    pub staged_format: ImageFormat,
    /// Its SHA-256, as recorded by the export.
    pub checksum: Digest,
    /// The disk's content digest, as recorded by the export.
    pub content_digest: Digest,
    /// The source disk's virtual size in bytes.
    pub capacity: u64,
    /// Format of the volume.
    pub target_format: ImageFormat,
    /// Virtual size of the volume in bytes, at least the source's.
    pub target_capacity: u64,
}

/// An import whose staged object was opened: it knows how long the volume's file will be.
pub struct Import {
    store: Arc<dyn StagingStore>,
    spec: ImportSpec,
    object: String,
    meta: ObjectMeta,
    runs: Vec<DataRun>,
    layout: Layout,
}

impl Import {
    /// Opens the staged object and lays out the volume. Nothing of it is trusted yet.
    ///
    /// [`StagedCorrupt`](Kind::StagedCorrupt) where it is not there or not the kind of image that was exported.
    pub async fn open(store: Arc<dyn StagingStore>, spec: ImportSpec) -> Result<Self, Error> {
        let object = format!("staged object {}", store.url(&spec.object));
        let head = store.head(&spec.object).await;
        let meta = head
            .map_err(staging("look up", &object))?
            .ok_or_else(|| corrupt(&object).detail("it is gone"))?;
        let runs = read_runs(&store, &spec, &meta, &object).await?;
        let map = map_of(&runs, spec.capacity).ok_or_else(|| corrupt(&object).detail("its data is out of order"))?;
        let layout = Layout::new(spec.target_format, &map, spec.target_capacity)
            .map_err(|error| Error::new(Kind::Image(error.kind()), "lay out the volume for", &*object).source(error))?;
        Ok(Self {
            store,
            spec,
            object,
            meta,
            runs,
            layout,
        })
    }

    /// Length of the volume's file in bytes.
    pub fn target_len(&self) -> u64 {
        self.layout.len()
    }

    /// Reads the staged object once, from front to back, and writes the volume.
    ///
    /// The sink's `finish` is called only when both digests are those that were recorded;
    /// [`StagedCorrupt`](Kind::StagedCorrupt) otherwise.
    pub async fn run(
        &self,
        sink: Arc<dyn DiskSink>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Report, Error> {
        self.run_with(&*sink, progress, cancel, STALL).await
    }

    pub(crate) async fn run_with(
        &self,
        sink: &dyn DiskSink,
        progress: &Progress,
        cancel: &CancellationToken,
        stall: Duration,
    ) -> Result<Report, Error> {
        progress.start(self.meta.len, 0);
        let pass = self.pass(sink, progress, cancel);
        let hashes = progress.watch(&self.object, stall, pass).await?;
        let checksum = hashes.object.unwrap_or_default().finish();
        let content_digest = hashes.content.finish();
        self.compare("SHA-256", checksum, self.spec.checksum)?;
        self.compare("content digest", content_digest, self.spec.content_digest)?;
        let finished = tokio::time::timeout(CLOSING, sink.finish(self.layout.len())).await;
        finished
            .map_err(|_| Error::new(Kind::Stalled, "close", "the volume").detail("the target does not answer"))?
            .map_err(|error| error::target(error, "the volume"))?;
        Ok(Report {
            len: self.meta.len,
            checksum,
            content_digest,
            moved: self.meta.len,
        })
    }

    async fn pass(
        &self,
        sink: &dyn DiskSink,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Hashes, Error> {
        let hashes = Hashes {
            object: Some(ObjectHash::default()),
            content: ContentDigest::new(self.spec.capacity),
        };
        let Hasher { chunks, hashed, end } = Hasher::start(hashes, u64::MAX, self.meta.len)?;
        let mut writer = Writer::new(sink, &self.layout, progress);
        let pool = Pool::new(CHUNK as usize, CHUNKS);
        let places = (0..self.meta.len)
            .step_by(CHUNK as usize)
            .map(|at| (at, CHUNK.min(self.meta.len - at)));
        let read = |offset, buf| self.chunk(offset, buf, progress).boxed();
        let feed = feed(places, pool, read, chunks, cancel, &self.object);
        let (read, written) = tokio::join!(feed, writer.run(hashed));
        // A failure to write ends the reading, too, so it is the one to tell.
        written?;
        read?;
        end.await.map_err(|_| died())
    }

    async fn chunk(&self, offset: u64, buf: Buf, progress: &Progress) -> Result<Chunk, Error> {
        let read = self
            .store
            .read_one(&self.spec.object, &self.meta.version, offset, buf)
            .await;
        let buf = read.map_err(staging("read", &self.object))?;
        progress.alive(buf.len() as u64);
        let spans = self.spans(offset, offset + buf.len() as u64);
        Ok(Chunk { offset, buf, spans })
    }

    /// What of the object between these bytes is content of the disk.
    fn spans(&self, start: u64, end: u64) -> Vec<Span> {
        let first = self.runs.partition_point(|run| run.file_offset + run.len <= start);
        let within = self.runs[first..].iter().take_while(|run| run.file_offset < end);
        within
            .filter_map(|run| {
                let from = run.file_offset.max(start);
                let guest = run.guest + (from - run.file_offset);
                let len = ((run.file_offset + run.len).min(end) - from).min(self.spec.capacity.saturating_sub(guest));
                let (at, len) = ((from - start) as usize, len as usize);
                (len > 0).then_some(Span { at, len, guest })
            })
            .collect()
    }

    fn compare(&self, what: &str, found: Digest, recorded: Digest) -> Result<(), Error> {
        if found == recorded {
            return Ok(());
        }
        Err(corrupt(&self.object).detail(format!(
            "its {what} is {found}, and {recorded} was recorded by the export"
        )))
    }
}

/// Reads the tables of the staged image.
async fn read_runs(
    store: &Arc<dyn StagingStore>,
    spec: &ImportSpec,
    meta: &ObjectMeta,
    object: &str,
) -> Result<Vec<DataRun>, Error> {
    let file = Arc::new(StagedFile::new(Arc::clone(store), spec.object.clone(), meta.clone()));
    let wrong = |error: vmferry_image::Error| match error.kind() {
        vmferry_image::Kind::Io | vmferry_image::Kind::Bug => {
            Error::new(Kind::Image(error.kind()), "read", object).source(error)
        }
        // We wrote it, and nothing of this can be in what we write.
        _ => corrupt(object).source(error),
    };
    let source = Source::new(object, spec.staged_format, file);
    let image = Image::open(source, &NoBacking, Limits::default())
        .await
        .map_err(wrong)?;
    if image.capacity() != spec.capacity && image.capacity() != spec.capacity.next_multiple_of(512) {
        let detail = format!(
            "it is of a disk of {} bytes, and {} were exported",
            image.capacity(),
            spec.capacity
        );
        return Err(corrupt(object).detail(detail));
    }
    image.data_runs().await.map_err(wrong)
}

/// The allocation map of runs in guest order, cut at the capacity; `None` where they are not in order, in the file or on
/// the disk.
fn map_of(runs: &[DataRun], capacity: u64) -> Option<AllocationMap> {
    let mut map = AllocationMap::builder(capacity);
    let mut file_end = 0;
    for run in runs {
        if run.file_offset < file_end {
            return None;
        }
        file_end = run.file_offset.checked_add(run.len)?;
        let len = run.len.min(capacity.saturating_sub(run.guest));
        map.data(run.guest.min(capacity), len).ok()?;
    }
    Some(map.build())
}

fn corrupt(object: &str) -> Error {
    Error::new(Kind::StagedCorrupt, "import", object).remedy("it is exported again on the next attempt")
}
