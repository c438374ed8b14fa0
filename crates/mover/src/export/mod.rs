//! From a disk into staging.
//!
//! Zeros within allocated data are left out of a VMDK, whose grains find their places as they come. In a planned layout (qcow2, raw)
//! every place, and with it the object's SHA-256, is fixed before the first byte is read, so there they are sent.

mod journal;
mod plan;
mod read;
mod upload;
mod vmdk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, ContentDigest, ObjectHash, Pool};
use vmferry_image::vmdk::stream::{Adapter, GRAIN, Writer};
use vmferry_image::{ImageFormat, Layout};
use vmferry_provider::DiskSource;
use vmferry_staging::{ObjectKey, Part, StagingStore, UploadId, Uploaded};

use crate::chunk::{CHUNK, cut, feed, single};
use crate::error::{self, staging};
use crate::hasher::{Hasher, Hashes, Vmdk};
use crate::patience::Patience;
use crate::progress::Progress;
use crate::{Error, Kind, Report};
use journal::{HashedPrefix, Journal, Seal, taken};
use plan::Plan;
use read::Reader;
use upload::{Destination, Upload};
use vmdk::Packing;

/// How long nothing may move, beside the time that a part takes at 1 MiB/s.
const STALL: Duration = Duration::from_mins(1);
/// How long the calls at the beginning and at the end may take: a server that flushes a whole object has much to do.
const CLOSING: Duration = Duration::from_mins(15);

/// What is exported, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSpec {
    /// The staged object.
    pub object: ObjectKey,
    /// UID of the migration. An object of another's is never touched.
    pub owner: String,
    /// Id of the frozen state that is read: bytes of two of them never meet in one object.
    pub frozen: String,
    /// Format of the staged object.
    pub format: ImageFormat,
    /// Bytes of memory for its buffers; less than 24 MiB count as 24 MiB.
    pub memory: u64,
}

/// What tests set otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tuning {
    pub(crate) part_size: Option<u64>,
    pub(crate) stall: Option<Duration>,
    /// Failures in a row, and the wait after the first.
    pub(crate) patience: Option<(u32, Duration)>,
}

/// Exports a disk into staging, from where the last attempt stopped if there was one. After a failure of the store that
/// passes it goes on by itself, as long as that helps.
///
/// The object is there only if the source says that the frozen state held all through
/// ([`FrozenStateGone`](Kind::FrozenStateGone) otherwise, and the upload is aborted). On any other failure and on `cancel`,
/// what arrived stays, with a journal beside it; nothing moves any more when this returns. Dropping the future is safe,
/// too, but what is under way then ends by itself.
pub async fn export_disk(
    source: Arc<dyn DiskSource>,
    store: Arc<dyn StagingStore>,
    spec: ExportSpec,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<Report, Error> {
    export_tuned(&*source, &*store, &spec, &progress, &cancel, Tuning::default()).await
}

pub(crate) async fn export_tuned(
    source: &dyn DiskSource,
    store: &dyn StagingStore,
    spec: &ExportSpec,
    progress: &Progress,
    cancel: &CancellationToken,
    tuning: Tuning,
) -> Result<Report, Error> {
    let object = store.url(&spec.object);
    let map = source.map().await.map_err(|error| error::source(error, &object))?;
    let wrong = |error: vmferry_image::Error| Error::new(Kind::Image(error.kind()), "stage", &*object).source(error);
    let limits = store.limits();
    let (map, body, plan) = if spec.format == ImageFormat::Vmdk {
        let capacity = source.capacity().next_multiple_of(512);
        let writer = Writer::new(capacity, Adapter::default()).map_err(wrong)?;
        let map = map.align(GRAIN);
        let plan = Plan::of_stream(Writer::most(capacity, &map), tuning.part_size, limits, spec.memory)?;
        (map, Body::Vmdk(writer), plan)
    } else {
        let layout = Layout::new(spec.format, &map, source.capacity()).map_err(wrong)?;
        let len = layout.len();
        let plan = match tuning.part_size {
            Some(size) => Plan::with_part_size(len, size, limits, spec.memory),
            None => Plan::new(len, limits, spec.memory)?,
        };
        (map, Body::Planned(layout), plan)
    };
    let export = Export {
        source,
        store,
        spec,
        progress,
        map,
        body,
        plan,
        object: object.clone(),
    };
    let held = if plan.flowing { 0 } else { plan.part_size };
    let stall = tuning.stall.unwrap_or(STALL + Duration::from_secs(held >> 20));
    let patience = tuning.patience.map(|(tries, first)| Patience::new(tries, first));
    match export.insist(cancel, stall, patience.unwrap_or_default()).await {
        Err(error) if error.kind() == Kind::FrozenStateGone => {
            // What was read of it is worth nothing any more. The failure to remove it must not hide why.
            if let Err(second) = export.discard().await {
                tracing::warn!(object = %export.object, error = %second, "the upload of a lost frozen state stays for now");
            }
            Err(error)
        }
        outcome => outcome,
    }
}

struct Export<'a> {
    source: &'a dyn DiskSource,
    store: &'a dyn StagingStore,
    spec: &'a ExportSpec,
    progress: &'a Progress,
    map: AllocationMap,
    body: Body,
    plan: Plan,
    object: String,
}

/// How the object comes about.
enum Body {
    /// Its layout is known before its first byte.
    Planned(Layout),
    /// A VMDK, packed as it goes. This is its writer before the first byte.
    Vmdk(Writer),
}

/// What a pass leaves when it came to the end.
struct Passed {
    parts: Vec<Part>,
    journal: Journal,
    hashes: Hashes,
}

/// Where an export stands when it starts.
enum Start {
    /// The object is there.
    Done(Report),
    /// An upload is to be gone on with, or was just begun.
    Upload(Box<Found>),
}

/// An upload that is under way.
struct Found {
    journal: Journal,
    id: UploadId,
    arrived: BTreeMap<u32, Part>,
    /// Whether the store lists what arrived.
    listed: bool,
}

impl Export<'_> {
    /// Runs, and goes on from the journal after failures that pass.
    async fn insist(
        &self,
        cancel: &CancellationToken,
        stall: Duration,
        mut patience: Patience,
    ) -> Result<Report, Error> {
        let before = self.progress.moved();
        loop {
            match self.run(cancel, stall).await {
                Ok(report) => {
                    let moved = self.progress.moved() - before;
                    return Ok(Report { moved, ..report });
                }
                Err(error) => patience.after(error, self.progress, cancel).await?,
            }
        }
    }

    async fn run(&self, cancel: &CancellationToken, stall: Duration) -> Result<Report, Error> {
        let found = match self.within(self.start()).await? {
            Start::Done(report) => {
                self.progress.start(report.len, report.len);
                return Ok(report);
            }
            Start::Upload(found) => *found,
        };
        let id = found.id.clone();
        let done = found.arrived.keys().map(|number| self.plan.part_len(*number)).sum();
        self.progress.start(self.plan.len, done);
        let mut parts: Vec<Part> = found.arrived.values().cloned().collect();
        let mut journal = found.journal.clone();
        if journal.sealed.is_none() {
            let pass = Box::pin(self.pass(found, cancel));
            let passed = self.progress.watch(&self.object, stall, pass).await?;
            let hashes = passed.hashes;
            (parts, journal) = (passed.parts, passed.journal);
            self.within(async {
                let held = self.source.finish().await;
                held.map_err(|error| error::source(error, &self.object))
            })
            .await?;
            journal.sealed = Some(Seal {
                len: hashes.read(),
                checksum: hashes.object.unwrap_or_default().finish(),
                content_digest: hashes.content.finish(),
                version: None,
            });
            journal.save(self.store, &self.spec.object).await?;
        }
        self.complete(journal, &id, &parts).await
    }

    /// Makes the whole object, or what is missing of it, hashes it and puts the missing parts.
    async fn pass(&self, found: Found, cancel: &CancellationToken) -> Result<Passed, Error> {
        let expected = |len, guest| self.expected(len, guest);
        let to = Destination {
            store: self.store,
            key: &self.spec.object,
            id: &found.id,
            plan: self.plan,
            listed: found.listed,
            expected: &expected,
        };
        let (hashes, writer) = self.resume(&found.journal).await?;
        let mut upload = Upload::new(to, self.progress, found.journal, found.arrived);
        let hashes = match (&self.body, writer) {
            (Body::Planned(layout), _) => self.planned(layout, hashes, &mut upload, cancel).await?,
            (Body::Vmdk(fresh), writer) => {
                let writer = writer.unwrap_or_else(|| fresh.clone());
                self.packed(writer, hashes, &mut upload, cancel).await?
            }
        };
        let (parts, journal) = upload.into_parts();
        Ok(Passed { parts, journal, hashes })
    }

    /// Fills a layout, front to back.
    async fn planned(
        &self,
        layout: &Layout,
        hashes: Hashes,
        upload: &mut Upload<'_>,
        cancel: &CancellationToken,
    ) -> Result<Hashes, Error> {
        let reader = &self.reader(Some(layout));
        let from = hashes.read();
        let Hasher { chunks, hashed, end } = Hasher::start(hashes, self.plan.part_size, self.plan.len)?;
        let pool = Pool::new(CHUNK as usize, self.plan.chunks);
        let places = (from..self.plan.len)
            .step_by(CHUNK as usize)
            .map(|at| (at, CHUNK.min(self.plan.len - at)));
        let read = |offset, bufs| single(bufs, async move |buf| reader.chunk(offset, buf).await).boxed();
        let feed = feed(places, pool, read, chunks, cancel, &self.object);
        let (read, put) = tokio::join!(feed, upload.run(hashed, cancel));
        // A failure to read ends the upload, too, so it is the one to tell.
        read?;
        put?;
        end.hashes().await
    }

    /// Packs what the disk holds, front to back.
    async fn packed(
        &self,
        writer: Writer,
        hashes: Hashes,
        upload: &mut Upload<'_>,
        cancel: &CancellationToken,
    ) -> Result<Hashes, Error> {
        let reader = &self.reader(None);
        let from = writer.next_guest();
        let parts = Pool::new(CHUNK as usize, self.plan.chunks);
        let Packing { chunks, hashed, end } = Packing::start(writer, hashes, self.plan.part_size, parts)?;
        let pool = Pool::new(CHUNK as usize, Plan::for_packing(self.spec.memory));
        let read = |guest, bufs| single(bufs, async move |buf| reader.plain(guest, buf).await).boxed();
        let places = cut(&self.map, from, u64::MAX);
        let feed = async {
            let fed = feed(places, pool, read, chunks.clone(), cancel, &self.object).await;
            end.all_given(fed.is_ok());
            drop(chunks);
            fed
        };
        let (read, put) = tokio::join!(feed, upload.run(hashed, cancel));
        read?;
        match (end.hashes().await, put) {
            // What could not be packed ended the upload; otherwise the upload ended the packing.
            (Err(error), _) if error.kind() != Kind::Bug => Err(error),
            (hashes, put) => put.and(hashes),
        }
    }

    fn reader<'a>(&'a self, layout: Option<&'a Layout>) -> Reader<'a> {
        Reader {
            source: self.source,
            layout,
            progress: self.progress,
            object: &self.object,
        }
    }

    /// The hashes to go on from, and a VMDK's writer, which may be behind them.
    async fn resume(&self, journal: &Journal) -> Result<(Hashes, Option<Writer>), Error> {
        let fresh = || Hashes {
            object: Some(ObjectHash::default()),
            content: ContentDigest::new(self.source.capacity()),
        };
        let Some((object, mut content, writer)) = journal.hashed.as_ref().and_then(|prefix| self.restore(prefix))
        else {
            return Ok((fresh(), None));
        };
        // The content is saved up to a leaf. What follows it is read once more, at most a leaf.
        let until = match (&self.body, &writer) {
            (Body::Planned(layout), _) => layout.guest_before(object.len()),
            (Body::Vmdk(_), Some(writer)) => writer.next_guest(),
            (Body::Vmdk(_), None) => return Ok((fresh(), None)),
        };
        let reader = self.reader(None);
        for (guest, len) in cut(&self.map, content.position(), until) {
            let buf = reader.read(guest, Buf::alone(len as usize)).await?;
            content.data(guest, &buf);
        }
        let object = Some(object);
        Ok((Hashes { object, content }, writer))
    }

    fn restore(&self, prefix: &HashedPrefix) -> Option<(ObjectHash, ContentDigest, Option<Writer>)> {
        let object = ObjectHash::restore(&prefix.states.object)?;
        let content = ContentDigest::restore(&prefix.states.content)?;
        let writer = match &prefix.states.vmdk {
            Some(Vmdk::Writer { state, .. }) => Some(Writer::restore(state)?),
            _ => None,
        };
        let behind = writer.as_ref().is_none_or(|writer| writer.len() <= object.len());
        // The last part may be shorter, and is in the hash as it is.
        let fits = object.len() == self.plan.start(prefix.parts) || !self.plan.exact;
        (behind && fits).then_some((object, content, writer))
    }

    /// The length that the object is likely to have, if it has `len` bytes when the disk is done up to `guest`.
    fn expected(&self, len: u64, guest: u64) -> u64 {
        let extents = self.map.extents().iter();
        let done: u64 = extents
            .take_while(|extent| extent.start < guest)
            .map(|extent| extent.end().min(guest) - extent.start)
            .sum();
        let left = u128::from(self.map.data_bytes() - done);
        let more = left * u128::from(len) / u128::from(done.max(1));
        u64::try_from(more).map_or(self.plan.len, |more| len.saturating_add(more).min(self.plan.len))
    }

    fn fingerprint(&self) -> String {
        match &self.body {
            Body::Planned(layout) => layout.fingerprint(),
            Body::Vmdk(writer) => writer.fingerprint(),
        }
    }

    /// Finds what earlier attempts left, and begins an upload where that is of no use.
    async fn start(&self) -> Result<Start, Error> {
        let key = &self.spec.object;
        let found = Journal::load(self.store, key, &self.spec.owner).await?;
        let head = self.store.head(key).await.map_err(staging("look up", &self.object))?;
        let fresh = Journal::new(self.spec, self.fingerprint(), self.plan.len, self.plan.part_size);
        let Some(mut journal) = found else {
            return match head {
                Some(_) => Err(taken(&self.object, "there is no journal beside it")),
                None => self.begin(fresh).await,
            };
        };
        if let Some(head) = head {
            // The object is ours if it has the version that was recorded. A crash between the naming and the record leaves
            // a seal without version and an upload that is gone.
            let seal = journal.sealed.clone().filter(|seal| head.len == seal.len);
            let ours = match seal.as_ref().map(|seal| &seal.version) {
                Some(Some(version)) => *version == head.version,
                Some(None) => self.is_gone(&journal).await?,
                None => false,
            };
            return match seal {
                Some(mut seal) if ours && journal.is_of(&fresh) => {
                    seal.version = Some(head.version);
                    journal.sealed = Some(seal.clone());
                    journal.save(self.store, key).await?;
                    Ok(Start::Done(Journal::report(&seal)))
                }
                Some(_) if ours => {
                    // Ours, and of another point in time.
                    self.store.delete(key).await.map_err(staging("delete", &self.object))?;
                    self.begin(fresh).await
                }
                _ => Err(taken(
                    &self.object,
                    "it is not the one that the journal beside it tells of",
                )),
            };
        }
        if !journal.is_of(&fresh) {
            return self.begin(fresh).await;
        }
        self.go_on(journal, fresh).await
    }

    async fn is_gone(&self, journal: &Journal) -> Result<bool, Error> {
        let Some(id) = &journal.upload else { return Ok(false) };
        let parts = self.store.parts(&self.spec.object, id).await;
        Ok(parts.map_err(staging("look up", &self.object))? == Uploaded::Gone)
    }

    /// Goes on with the upload of the journal, if it is still there and its parts are those of our plan.
    async fn go_on(&self, mut journal: Journal, fresh: Journal) -> Result<Start, Error> {
        let Some(id) = journal
            .upload
            .clone()
            .filter(|_| journal.part_size == self.plan.part_size)
        else {
            return self.begin(fresh).await;
        };
        let parts = self.store.parts(&self.spec.object, &id).await;
        let (arrived, listed) = match parts.map_err(staging("look up", &self.object))? {
            Uploaded::Gone => return self.begin(fresh).await,
            Uploaded::Unlisted => (journal.arrived(), false),
            Uploaded::Parts(listed) => (listed.into_iter().map(|part| (part.number, part)).collect(), true),
        };
        let prefix = journal.hashed.as_ref().map_or(0, |prefix| prefix.parts);
        if !(0..prefix).all(|number| arrived.contains_key(&number)) {
            // A part that we know of is not there: the hashes start over, the parts that are there stay.
            journal.hashed = None;
        }
        let parts = |seal: &Seal| seal.len.div_ceil(self.plan.part_size) as usize;
        journal.sealed = journal.sealed.filter(|seal| parts(seal) == arrived.len());
        Ok(Start::Upload(Box::new(Found {
            journal,
            id,
            arrived,
            listed,
        })))
    }

    /// Ends the uploads of earlier attempts of this migration and begins one. The journal comes first, so that whatever is
    /// begun is known to be ours.
    async fn begin(&self, mut journal: Journal) -> Result<Start, Error> {
        let key = &self.spec.object;
        self.abort().await?;
        journal.save(self.store, key).await?;
        let id = self
            .store
            .begin(key, self.plan.len, self.plan.part_size)
            .await
            .map_err(staging("begin", &self.object))?;
        journal.upload = Some(id.clone());
        journal.save(self.store, key).await?;
        let parts = self.store.parts(key, &id).await;
        let listed = matches!(parts.map_err(staging("look up", &self.object))?, Uploaded::Parts(_));
        Ok(Start::Upload(Box::new(Found {
            journal,
            id,
            arrived: BTreeMap::new(),
            listed,
        })))
    }

    /// Gives the object its name and records that.
    async fn complete(&self, mut journal: Journal, id: &UploadId, parts: &[Part]) -> Result<Report, Error> {
        let Some(seal) = &mut journal.sealed else {
            return Err(Error::new(Kind::Bug, "complete", &*self.object).detail("it was not sealed"));
        };
        let len = seal.len;
        self.progress.expect(len);
        let completed = self.within(async {
            let completed = self.store.complete(&self.spec.object, id, len, parts).await;
            completed.map_err(staging("complete", &self.object))
        });
        let meta = completed.await?;
        seal.version = Some(meta.version);
        let seal = seal.clone();
        journal.save(self.store, &self.spec.object).await?;
        Ok(Journal::report(&seal))
    }

    /// Removes the upload and the journal.
    async fn discard(&self) -> Result<(), Error> {
        self.abort().await?;
        let deleted = self.store.delete_note(&self.spec.object).await;
        deleted.map_err(staging("delete the journal of", &self.object))
    }

    async fn abort(&self) -> Result<(), Error> {
        let aborted = self.store.abort(&self.spec.object).await;
        aborted.map_err(staging("abort the upload of", &self.object))
    }

    /// Calls of the beginning and the end, which have a limit of their own.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(CLOSING, work).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Stalled, "open or close", &*self.object)
                .detail(format!("no answer within {} minutes", CLOSING.as_secs() / 60)))
        })
    }
}
