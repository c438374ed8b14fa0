//! From a disk into staging.
//!
//! A disk that can be read at any offset is laid out and read here; one that comes as a stream, in [`stream`].
//!
//! Zeros within allocated data are left out of a VMDK, whose grains find their places as they come. In a planned layout (qcow2, raw)
//! every place, and with it the object's SHA-256, is fixed before the first byte is read, so there they are sent.

mod journal;
mod object;
mod plan;
mod read;
mod stream;
mod upload;
mod vmdk;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, ContentDigest, ObjectHash, Pool};
use vmferry_image::vmdk::stream::{Adapter, GRAIN, Writer};
use vmferry_image::{ImageFormat, Layout};
use vmferry_provider::DiskSource;
use vmferry_staging::{ObjectKey, Part, StagingStore};

use crate::chunk::{CHUNK, cut, feed, single};
use crate::error;
use crate::hasher::{Hasher, Hashes, Vmdk, died};
use crate::patience::Patience;
use crate::progress::{Progress, SLOWEST};
use crate::{Error, Kind, Report};
use journal::{HashedPrefix, Journal, Seal};
use object::{Found, Object, Start};
use plan::Plan;
use read::Reader;
#[cfg(test)]
pub(crate) use stream::stream_tuned;
pub use stream::{Open, export_stream};
use upload::{Destination, Upload};
use vmdk::Packing;

/// How long nothing may move, beside the time that all that is under way takes on a slow way.
const STALL: Duration = Duration::from_mins(1);

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
    let object = Object {
        store,
        spec,
        plan,
        name: object.clone(),
        fingerprint: body.fingerprint(),
        resumable: true,
    };
    let export = Export {
        source,
        progress,
        map,
        body,
        object,
    };
    // A part gives a sign of life when it is whole, and on a slow way all of them are at the same time.
    let held = if plan.flowing {
        0
    } else {
        plan.part_size * plan.in_flight as u64
    };
    let stall = tuning.stall.unwrap_or(STALL + Duration::from_secs(held / SLOWEST));
    let patience = tuning.patience.map(|(tries, first)| Patience::new(tries, first));
    match export.insist(cancel, stall, patience.unwrap_or_default()).await {
        Err(error) if error.kind() == Kind::FrozenStateGone => {
            // What was read of it is worth nothing any more. The failure to remove it must not hide why.
            if let Err(second) = export.object.discard().await {
                tracing::warn!(object = %export.object.name, error = %second, "the upload of a lost frozen state stays for now");
            }
            Err(error)
        }
        outcome => outcome,
    }
}

struct Export<'a> {
    source: &'a dyn DiskSource,
    progress: &'a Progress,
    map: AllocationMap,
    body: Body,
    object: Object<'a>,
}

/// How the object comes about.
enum Body {
    /// Its layout is known before its first byte.
    Planned(Layout),
    /// A VMDK, packed as it goes. This is its writer before the first byte.
    Vmdk(Writer),
}

impl Body {
    fn fingerprint(&self) -> String {
        match self {
            Self::Planned(layout) => layout.fingerprint(),
            Self::Vmdk(writer) => writer.fingerprint(),
        }
    }
}

/// What a pass leaves when it came to the end.
struct Passed {
    parts: Vec<Part>,
    journal: Journal,
    hashes: Hashes,
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
        let found = match self.object.within(self.object.start()).await? {
            Start::Done(report) => {
                self.progress.start(report.len, report.len);
                return Ok(report);
            }
            Start::Upload(found) => *found,
        };
        let id = found.id.clone();
        let done = found
            .arrived
            .keys()
            .map(|number| self.object.plan.part_len(*number))
            .sum();
        self.progress.start(self.object.plan.len, done);
        let mut parts: Vec<Part> = found.arrived.values().cloned().collect();
        let mut journal = found.journal.clone();
        if journal.sealed.is_none() {
            let pass = Box::pin(self.pass(found, cancel));
            let passed = self.progress.watch(&self.object.name, stall, pass).await?;
            let hashes = passed.hashes;
            (parts, journal) = (passed.parts, passed.journal);
            self.object
                .within(async {
                    let held = self.source.finish().await;
                    held.map_err(|error| error::source(error, &self.object.name))
                })
                .await?;
            journal.sealed = Some(Seal {
                len: hashes.read(),
                checksum: hashes.object.unwrap_or_default().finish(),
                content_digest: hashes.content.finish(),
                version: None,
            });
            journal.save(self.object.store, &self.object.spec.object).await?;
        }
        self.object.complete(self.progress, journal, &id, &parts, cancel).await
    }

    /// Makes the whole object, or what is missing of it, hashes it and puts the missing parts.
    async fn pass(&self, found: Found, cancel: &CancellationToken) -> Result<Passed, Error> {
        let expected = |len, guest| self.expected(len, guest);
        let to = Destination {
            store: self.object.store,
            key: &self.object.spec.object,
            id: &found.id,
            plan: self.object.plan,
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
        let Hasher { chunks, hashed, end } = Hasher::start(hashes, self.object.plan.part_size, self.object.plan.len)?;
        let pool = Pool::new(CHUNK as usize, self.object.plan.chunks);
        let places = (from..self.object.plan.len)
            .step_by(CHUNK as usize)
            .map(|at| (at, CHUNK.min(self.object.plan.len - at)));
        let read = |offset, bufs| single(bufs, async move |buf| reader.chunk(offset, buf).await).boxed();
        let feed = feed(places, pool, read, chunks, cancel, &self.object.name);
        let (read, put) = tokio::join!(feed, upload.run(hashed, cancel));
        // A failure to read ends the upload, too, so it is the one to tell.
        read?;
        put?;
        let hashes = end.hashes().await?;
        // A thread that ended early must not be taken for the end of the object.
        if hashes.read() == self.object.plan.len {
            Ok(hashes)
        } else {
            Err(died())
        }
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
        let parts = Pool::new(CHUNK as usize, self.object.plan.chunks);
        let Packing { chunks, hashed, end } = Packing::start(writer, hashes, self.object.plan.part_size, parts)?;
        let pool = Pool::new(CHUNK as usize, Plan::for_packing(self.object.spec.memory));
        let read = |guest, bufs| single(bufs, async move |buf| reader.plain(guest, buf).await).boxed();
        let places = cut(&self.map, from, u64::MAX);
        let feed = async {
            let fed = feed(places, pool, read, chunks.clone(), cancel, &self.object.name).await;
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
            object: &self.object.name,
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
        let fits = object.len() == self.object.plan.start(prefix.parts) || !self.object.plan.exact;
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
        u64::try_from(more).map_or(self.object.plan.len, |more| {
            len.saturating_add(more).min(self.object.plan.len)
        })
    }
}
