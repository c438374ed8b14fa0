//! From staging into a volume.
//!
//! The object is read once, front to back, and its data must come in the order of the disk, as in all that is staged here:
//! an image whose clusters or grains are out of order is refused as not the one that was exported.

mod content;
mod journal;
mod note;
mod relay;
mod staged;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, ContentDigest, Digest, ObjectHash, Pool};
use vmferry_image::{ImageFormat, Layout};
use vmferry_provider::DiskSink;
use vmferry_staging::{ObjectKey, ObjectMeta, StagingStore};

use crate::chunk::{CHUNK, Chunk, cut, feed};
use crate::error::{self, staging};
use crate::hasher::{Hashed, Hasher, Hashes, States, Vmdk};
use crate::lanes;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::unpack::{Decoder, Name, Out, Parts, Unpacking};
use crate::{Error, Kind, Report};
use content::Content;
use journal::{Journal, What};
use note::Notes;
use relay::Relay;
use write::Writer;

/// Bytes that are asked for at once: a request costs much, wherever the store is.
const RANGE: u64 = 4 << 20;
/// The least memory that an import can do with, and the most that it has a use for.
const LEAST: u64 = 24 << 20;
const MOST: u64 = 48 << 20;
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
    /// What is written.
    pub form: TargetForm,
    /// The volume's own name, by which an import that goes on knows it again.
    pub volume: String,
    /// Bytes of memory for its buffers; less than 24 MiB count as 24 MiB.
    pub memory: u64,
}

/// What an import writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// A volume's file.
    Volume {
        /// Its format.
        format: ImageFormat,
        /// Its virtual size in bytes, at least the source's.
        capacity: u64,
    },
    /// The staged object as it is, front to back.
    Object,
}

/// How the target's file comes about.
enum Body {
    Laid(Layout),
    Object,
}

impl Body {
    fn fingerprint(&self) -> String {
        match self {
            Self::Laid(layout) => layout.fingerprint(),
            Self::Object => "object".to_owned(),
        }
    }
}

/// Where the bytes go.
enum Output<'a> {
    Volume(Box<Writer<'a>>),
    Object(Relay<'a>),
}

impl Output<'_> {
    async fn run(&mut self, hashed: mpsc::Receiver<Hashed>) -> Result<(), Error> {
        match self {
            Self::Volume(writer) => writer.run(hashed).await,
            Self::Object(relay) => relay.run(hashed).await,
        }
    }
}

/// An import whose staged object was opened: it knows how long the volume's file will be, and what of it an earlier attempt
/// wrote.
pub struct Import {
    store: Arc<dyn StagingStore>,
    spec: ImportSpec,
    object: String,
    meta: ObjectMeta,
    content: Content,
    /// Where on the disk there is content.
    map: AllocationMap,
    body: Body,
    /// Where an earlier attempt stopped.
    journal: Option<Journal>,
    tuning: Tuning,
}

/// What tests set otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Failures in a row, and the wait after the first.
    pub(crate) patience: (u32, Duration),
    pub(crate) stall: Duration,
    /// Bytes of the object between two notes, and between two places at which there can be one.
    pub(crate) note: u64,
    pub(crate) mark: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            patience: (Patience::TRIES, Patience::FIRST),
            stall: STALL,
            note: 256 << 20,
            mark: 8 << 20,
        }
    }
}

/// How far an import is: both hashes and the volume are at the same place.
struct Place {
    hashes: Hashes,
    /// Where a VMDK is decoded.
    decoder: Option<Decoder>,
    /// Everything before this byte of the volume's file was written, or reads as zeros.
    written: u64,
}

impl Place {
    /// Up to which byte the object was read.
    fn read(&self) -> u64 {
        self.hashes.read()
    }

    /// The place written down.
    fn states(&self) -> Option<States> {
        let states = self.hashes.states()?;
        let vmdk = self
            .decoder
            .as_ref()
            .map(|decoder| decoder.save(self.hashes.content.position()));
        Some(States { vmdk, ..states })
    }
}

impl Import {
    /// Opens the staged object and lays out the volume. Nothing of it is trusted yet.
    ///
    /// [`StagedCorrupt`](Kind::StagedCorrupt) where it is not there or not the kind of image that was exported. After a failure
    /// of the store that passes it tries again, until it is called off.
    pub async fn open(
        store: Arc<dyn StagingStore>,
        spec: ImportSpec,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let (mut patience, progress) = (Patience::default(), Progress::default());
        loop {
            let opened = tokio::time::timeout(CLOSING, Self::open_once(&store, &spec));
            let stalled =
                || Error::new(Kind::Stalled, "open", store.url(&spec.object)).detail("the store does not answer");
            match opened.await.unwrap_or_else(|_| Err(stalled())) {
                Ok(import) => return Ok(import),
                Err(error) => patience.after(error, &progress, cancel).await?,
            }
        }
    }

    async fn open_once(store: &Arc<dyn StagingStore>, spec: &ImportSpec) -> Result<Self, Error> {
        let object = format!("staged object {}", store.url(&spec.object));
        let head = store.head(&spec.object).await;
        let meta = head
            .map_err(staging("look up", &object))?
            .ok_or_else(|| corrupt(&object).detail("it is gone"))?;
        let (content, map) = Content::open(store, spec, &meta, &object).await?;
        let wrong = |error: vmferry_image::Error| {
            Error::new(Kind::Image(error.kind()), "lay out the volume for", &*object).source(error)
        };
        let body = match spec.form {
            TargetForm::Volume { format, capacity } => Body::Laid(Layout::new(format, &map, capacity).map_err(wrong)?),
            TargetForm::Object => Body::Object,
        };
        let found = Journal::load(&**store, &spec.object).await?;
        let mut import = Self {
            store: Arc::clone(store),
            spec: spec.clone(),
            object,
            meta,
            content,
            map,
            body,
            journal: None,
            tuning: Tuning::default(),
        };
        let what = import.what();
        import.journal = found.filter(|journal| journal.what == what && import.restore(journal).is_some());
        Ok(import)
    }

    fn what(&self) -> What {
        What {
            object_version: self.meta.version.clone(),
            checksum: self.spec.checksum,
            layout: self.body.fingerprint(),
            volume: self.spec.volume.clone(),
        }
    }

    /// Length in bytes of what is written.
    pub fn target_len(&self) -> u64 {
        match &self.body {
            Body::Laid(layout) => layout.len(),
            Body::Object => self.meta.len,
        }
    }

    /// How many bytes of the volume's file an earlier attempt wrote: they must be kept by the sink that is given to
    /// [`run`](Self::run), or else [`start_over`](Self::start_over) is called before the volume is emptied.
    pub fn written(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.written)
    }

    /// Forgets what earlier attempts wrote: the volume is about to be emptied.
    pub async fn start_over(&mut self) -> Result<(), Error> {
        // First, so that nobody ever goes on with a volume that is not what the journal says.
        Journal::remove(&*self.store, &self.spec.object).await?;
        self.journal = None;
        Ok(())
    }

    /// Sets what tests set otherwise.
    #[cfg(test)]
    pub(crate) fn tuned(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    /// Reads the staged object, from front to back or from where an earlier attempt stopped, and writes the volume. After a
    /// failure of the store that passes it goes on by itself, as long as that helps.
    ///
    /// The sink's `finish` is called only when both digests are those that were recorded;
    /// [`StagedCorrupt`](Kind::StagedCorrupt) otherwise. On any other failure and on `cancel`, what was written stays, with a
    /// journal beside the object, if the sink can keep it.
    pub async fn run(
        &self,
        sink: Arc<dyn DiskSink>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Report, Error> {
        progress.start(self.meta.len, 0);
        let before = progress.moved();
        let mut place = self.insist(progress, cancel, || self.place().boxed()).await?;
        let read = place.read();
        progress.start(self.meta.len, read);
        let notes = Notes {
            sink: &*sink,
            store: &*self.store,
            key: &self.spec.object,
            what: self.what(),
            every: self.tuning.note,
            last: (Instant::now(), read),
            keeps: true,
        };
        let mut output = match &self.body {
            Body::Laid(layout) => Output::Volume(Box::new(Writer::new(layout, progress, place.written, notes))),
            Body::Object => Output::Object(Relay { sink: &*sink, progress }),
        };
        self.all(&mut place, &mut output, progress, cancel).await?;
        let checksum = place.hashes.object.unwrap_or_default().finish();
        let content_digest = place.hashes.content.finish();
        let same = self
            .compare("SHA-256", checksum, self.spec.checksum)
            .and_then(|()| self.compare("content digest", content_digest, self.spec.content_digest));
        if same.is_ok() {
            let finished = async {
                if let Output::Volume(writer) = &mut output {
                    writer.finish().await?;
                }
                let finished = sink.finish(self.target_len()).await;
                finished.map_err(|error| error::target(error, "the volume"))
            };
            tokio::time::timeout(CLOSING, finished)
                .await
                .map_err(|_| Error::new(Kind::Stalled, "close", "the volume").detail("the target does not answer"))??;
        }
        // It is whole, or it is worth nothing.
        let forget = || Journal::remove(&*self.store, &self.spec.object).boxed();
        let forgotten = self.insist(progress, cancel, forget).await;
        same.and(forgotten)?;
        Ok(Report {
            len: self.meta.len,
            checksum,
            content_digest,
            moved: progress.moved() - before,
        })
    }

    /// Does `work`, again after failures that pass.
    async fn insist<'a, T>(
        &'a self,
        progress: &Progress,
        cancel: &CancellationToken,
        work: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let mut patience = self.patience();
        loop {
            let stalled = || Error::new(Kind::Stalled, "use", &*self.object).detail("the store does not answer");
            let done = tokio::time::timeout(self.tuning.stall, work()).await;
            match done.unwrap_or_else(|_| Err(stalled())) {
                Ok(done) => return Ok(done),
                Err(error) => patience.after(error, progress, cancel).await?,
            }
        }
    }

    fn name(&self) -> Name {
        let object = self.object.clone();
        Name {
            object,
            damaged: corrupt,
        }
    }

    fn patience(&self) -> Patience {
        let (tries, first) = self.tuning.patience;
        Patience::new(tries, first)
    }

    /// Where to begin.
    async fn place(&self) -> Result<Place, Error> {
        match self.journal.as_ref().and_then(|journal| self.restore(journal)) {
            Some((mut place, until)) => {
                self.catch_up(&mut place.hashes, until).await?;
                Ok(place)
            }
            None => Ok(Place {
                hashes: Hashes {
                    object: Some(ObjectHash::default()),
                    content: ContentDigest::new(self.spec.capacity),
                },
                decoder: matches!(self.content, Content::Packed(_)).then(|| Decoder::new(self.name())),
                written: 0,
            }),
        }
    }

    /// The place of a journal, and up to which byte of the disk its content came, where that was packed.
    fn restore(&self, journal: &Journal) -> Option<(Place, u64)> {
        let (hashes, written) = (journal.hashes()?, journal.written);
        let (decoder, until) = match (&self.content, &journal.states.vmdk) {
            (Content::Packed(_), Some(Vmdk::Reader { state, guest })) => {
                (Some(Decoder::restore(self.name(), state, *guest)?), *guest)
            }
            (Content::Packed(_), _) => return None,
            (Content::Runs(_), _) => (None, 0),
        };
        let place = Place {
            hashes,
            decoder,
            written,
        };
        Some((place, until))
    }

    /// The content is saved up to a leaf. What follows it before the place is read once more, at most a leaf.
    async fn catch_up(&self, hashes: &mut Hashes, until: u64) -> Result<(), Error> {
        let (read, settled) = (hashes.read(), hashes.content.position());
        match &self.content {
            Content::Packed(image) => {
                for (guest, len) in cut(&self.map, settled, until) {
                    let read = image.read(guest, Buf::alone(len as usize)).await;
                    let buf = read.map_err(|error| {
                        let kind = staged::store_kind(&error).map_or(Kind::StagedCorrupt, Kind::Staging);
                        Error::new(kind, "read", &*self.object).source(error)
                    })?;
                    hashes.content.data(guest, &buf);
                }
            }
            Content::Runs(runs) => {
                let first = runs.partition_point(|run| run.guest + run.len <= settled);
                for run in runs[first..].iter().take_while(|run| run.file_offset < read) {
                    let skip = settled.saturating_sub(run.guest);
                    let (from, end) = (run.file_offset + skip, (run.file_offset + run.len).min(read));
                    if from < end {
                        let buf = Buf::alone((end - from) as usize);
                        let read = self
                            .store
                            .read_one(&self.spec.object, &self.meta.version, from, buf)
                            .await;
                        let buf = read.map_err(staging("read", &self.object))?;
                        hashes.content.data(run.guest + skip, &buf);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads all that is left of the object and writes it.
    async fn all(
        &self,
        place: &mut Place,
        output: &mut Output<'_>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut patience = self.patience();
        loop {
            let stop = cancel.child_token();
            let pass = self.pass(place, output, progress, &stop);
            let Some(outcome) = progress
                .watch_stopping(&self.object, self.tuning.stall, &stop, pass)
                .await
            else {
                let kind = Kind::Target(vmferry_provider::Kind::Unreachable);
                return Err(Error::new(kind, "write", "the volume").detail("the target takes nothing any more"));
            };
            let Err(error) = outcome else { return Ok(()) };
            if let Err(error) = patience.after(error, progress, cancel).await {
                if let Output::Volume(writer) = output {
                    self.leave(place, writer, &error).await;
                }
                return Err(error);
            }
        }
    }

    /// Leaves a journal for the next attempt, unless it is the volume that failed.
    async fn leave(&self, place: &Place, writer: &mut Writer<'_>, error: &Error) {
        if matches!(error.kind(), Kind::Target(_) | Kind::Bug | Kind::StagedCorrupt) {
            return;
        }
        if let Some(states) = place.states()
            && let Ok(Err(error)) = tokio::time::timeout(self.tuning.stall, writer.note(states)).await
        {
            tracing::warn!(%error, "what was written to the volume is not kept for the next attempt");
        }
    }

    async fn pass(
        &self,
        place: &mut Place,
        output: &mut Output<'_>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        match place.decoder.take() {
            Some(decoder) => self.unpack(place, decoder, output, progress, stop).await,
            None => self.copy(place, output, progress, stop).await,
        }
    }

    /// Reads what lies in the object as it is.
    async fn copy(
        &self,
        place: &mut Place,
        output: &mut Output<'_>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let (mark, len) = (self.tuning.mark, self.meta.len);
        let Hasher { chunks, hashed, end } = Hasher::start(place.hashes.clone(), mark, len)?;
        let feed = self.feed(place.read(), chunks, self.chunks(), progress, stop);
        let (read, written) = tokio::join!(feed, output.run(hashed));
        // Whatever was hashed was written.
        place.hashes = end.hashes().await?;
        written?;
        read
    }

    /// Reads what is packed.
    async fn unpack(
        &self,
        place: &mut Place,
        decoder: Decoder,
        output: &mut Output<'_>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let (from, half) = (decoder.at, self.chunks() / 2);
        let unpacked = Pool::new(CHUNK as usize, half.max(2 * lanes::count() + 2));
        let (mark, len) = (self.tuning.mark, self.meta.len);
        let out = match output {
            Output::Volume(_) => Out::Content { mark, len },
            Output::Object(_) => Out::File(Parts::new(len, Some(len))),
        };
        let threads = Unpacking::start(place.hashes.clone(), decoder, out, self.spec.capacity, &unpacked)?;
        let Unpacking { chunks, hashed, end } = threads;
        let feed = self.feed(from, chunks, half, progress, stop);
        let (read, written) = tokio::join!(feed, output.run(hashed));
        let (hashes, decoder, outcome) = end.place().await?;
        place.hashes = hashes;
        written?;
        outcome?;
        if read.is_ok() && decoder.at == self.meta.len {
            return decoder.finish().map(drop);
        }
        place.decoder = Some(decoder);
        read
    }

    /// Reads the object from `from` on.
    async fn feed(
        &self,
        from: u64,
        chunks: Vec<mpsc::Sender<Chunk>>,
        memory: usize,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let pool = Pool::new(CHUNK as usize, memory);
        let ranges = (from..self.meta.len)
            .step_by(RANGE as usize)
            .map(|at| (at, RANGE.min(self.meta.len - at)));
        let read = |offset, bufs| self.read(offset, bufs, progress).boxed();
        feed(ranges, pool, read, chunks, stop, &self.object).await
    }

    /// Chunks that are read, hashed or written at one time, at most.
    fn chunks(&self) -> usize {
        (self.spec.memory.clamp(LEAST, MOST) / CHUNK) as usize - Writer::SCRATCH
    }

    async fn read(&self, mut offset: u64, bufs: Vec<Buf>, progress: &Progress) -> Result<Vec<Chunk>, Error> {
        let (key, version) = (&self.spec.object, &self.meta.version);
        let read = self.store.read(key, version, offset, bufs).await;
        let bufs = read.map_err(staging("read", &self.object))?;
        progress.alive();
        let chunk = |buf: Buf| {
            let start = offset;
            offset += buf.len() as u64;
            let spans = match &self.content {
                Content::Runs(runs) => content::spans(runs, start, offset, self.spec.capacity),
                Content::Packed(_) => Vec::new(),
            };
            Chunk {
                offset: start,
                buf,
                spans,
            }
        };
        Ok(bufs.into_iter().map(chunk).collect())
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

fn corrupt(object: &str) -> Error {
    Error::new(Kind::StagedCorrupt, "import", object).remedy("it is exported again on the next attempt")
}
