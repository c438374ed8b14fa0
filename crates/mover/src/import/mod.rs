//! From staging into a volume.
//!
//! The object is read once, front to back, and its data must come in the order of the disk, as in all that is staged here:
//! an image whose clusters or grains are out of order is refused as not the one that was exported.

mod content;
mod journal;
mod note;
mod pass;
mod place;
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
use vmferry_block::{AllocationMap, Digest};
use vmferry_image::{ImageFormat, Layout};
use vmferry_provider::DiskSink;
use vmferry_staging::{ObjectKey, ObjectMeta, StagingStore};

use crate::error::{self, staging};
use crate::hasher::Hashed;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::unpack::Name;
use crate::{Error, Kind, Report};
use content::Content;
use journal::{Journal, What};
use note::Notes;
use relay::Relay;
use write::Writer;

/// How long nothing may move, beside the time that all that is under way takes on a slow way.
const STALL: Duration = Duration::from_mins(1);
/// How long the target may take to make the volume durable, beside the time at 16 MiB/s: some copy all of it once more.
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
    pub(crate) stall: Option<Duration>,
    /// Bytes of the object between two notes, and between two places at which there can be one.
    pub(crate) note: u64,
    pub(crate) mark: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            patience: (Patience::TRIES, Patience::FIRST),
            stall: None,
            note: 256 << 20,
            mark: 8 << 20,
        }
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
            let limit = CLOSING + Duration::from_secs(self.target_len() >> 24);
            tokio::time::timeout(limit, finished)
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
            let done = tokio::time::timeout(self.answer(), work()).await;
            match done.unwrap_or_else(|_| Err(stalled())) {
                Ok(done) => return Ok(done),
                Err(error) => patience.after(error, progress, cancel).await?,
            }
        }
    }

    /// How long a single call may take.
    fn answer(&self) -> Duration {
        self.tuning.stall.unwrap_or(STALL)
    }

    fn name(&self) -> Name {
        let object = self.object.clone();
        Name {
            object,
            damaged: corrupt,
            unfit: corrupt,
        }
    }

    fn patience(&self) -> Patience {
        let (tries, first) = self.tuning.patience;
        Patience::new(tries, first)
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
