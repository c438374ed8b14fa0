//! From a stream into staging: a streamOptimized VMDK that a hypervisor makes while it is read is staged as it is.
//!
//! It is hashed and unpacked on its way, for the content digest and to see that it is whole. It can be read once only: whatever
//! ends the reading ends the upload, and the next pass begins both anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmferry_block::{Buf, ContentDigest, ObjectHash, Pool};
use vmferry_image::ImageFormat;
use vmferry_provider::DiskStream;
use vmferry_staging::{Part, StagingStore};

use super::journal::{Journal, Seal};
use super::object::{Found, Object, Start};
use super::plan::Plan;
use super::upload::{Destination, Upload};
use super::{ExportSpec, Tuning};
use crate::chunk::{CHUNK, Chunk};
use crate::error::{self, cancelled};
use crate::hasher::Hashes;
use crate::lanes;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::unpack::{Decoder, Name, Out, Parts, Unpacking};
use crate::{Error, Kind, Report};

/// How long nothing may come: a host that reads zeros for a while, at the end of a thick disk, sends nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// Opens the stream, from its front.
pub type Open<'a> = dyn Fn() -> BoxFuture<'a, Result<Box<dyn DiskStream>, vmferry_provider::Error>> + Send + Sync + 'a;

/// Exports a disk that can only be read as a stream, as [`export_disk`](super::export_disk) does any other, but always from the
/// front. After a failure of the store that passes it begins again by itself.
pub async fn export_stream(
    open: &Open<'_>,
    store: Arc<dyn StagingStore>,
    spec: ExportSpec,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<Report, Error> {
    stream_tuned(open, &*store, &spec, &progress, &cancel, Tuning::default()).await
}

pub(crate) async fn stream_tuned(
    open: &Open<'_>,
    store: &dyn StagingStore,
    spec: &ExportSpec,
    progress: &Progress,
    cancel: &CancellationToken,
    tuning: Tuning,
) -> Result<Report, Error> {
    let name = store.url(&spec.object);
    if spec.format != ImageFormat::Vmdk {
        let kind = Kind::Image(vmferry_image::Kind::Unsupported);
        return Err(Error::new(kind, "stage", name).detail(format!(
            "the source gives this disk as a stream of VMDK only, and {} was asked for",
            spec.format
        )));
    }
    let before = progress.moved();
    let patience = tuning.patience.map(|(tries, first)| Patience::new(tries, first));
    // A pass that begins anew moves bytes whatever it comes to: that is no progress.
    let (mut patience, none) = (patience.unwrap_or_default(), Progress::default());
    loop {
        let opened = open().await.map_err(|error| error::source(error, &name));
        let passed = match opened {
            Ok(stream) => Box::pin(Pass::run(stream, store, spec, progress, cancel, tuning)).await,
            Err(error) => Err(error),
        };
        match passed {
            Ok(report) => {
                let moved = progress.moved() - before;
                return Ok(Report { moved, ..report });
            }
            Err(error) => patience.after(error, &none, cancel).await?,
        }
    }
}

/// One pass, from the front to the end.
struct Pass<'a> {
    object: Object<'a>,
    capacity: u64,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Pass<'_> {
    async fn run(
        stream: Box<dyn DiskStream>,
        store: &dyn StagingStore,
        spec: &ExportSpec,
        progress: &Progress,
        cancel: &CancellationToken,
        tuning: Tuning,
    ) -> Result<Report, Error> {
        let plan = Plan::of_stream(stream.most(), tuning.part_size, store.limits(), spec.memory)?;
        let object = Object {
            store,
            spec,
            plan,
            name: store.url(&spec.object),
            fingerprint: "stream".to_owned(),
            resumable: false,
        };
        let pass = Pass {
            object,
            capacity: stream.capacity(),
            progress,
            cancel,
        };
        let outcome = pass.stage(stream, tuning.stall.unwrap_or(SILENCE)).await;
        if let Err(error) = &outcome
            && error.kind() == Kind::FrozenStateGone
            && let Err(second) = pass.object.discard().await
        {
            tracing::warn!(object = %pass.object.name, error = %second, "the upload of a lost frozen state stays for now");
        }
        outcome
    }

    async fn stage(&self, mut stream: Box<dyn DiskStream>, stall: Duration) -> Result<Report, Error> {
        let object = &self.object;
        let found = match object.within(object.start()).await? {
            Start::Done(report) => {
                self.progress.start(report.len, report.len);
                return Ok(report);
            }
            Start::Upload(found) => *found,
        };
        let id = found.id.clone();
        self.progress.start(object.plan.len, 0);
        let work = Box::pin(self.copy(&mut *stream, found));
        let (hashes, parts, mut journal) = self.progress.watch(&object.name, stall, work).await?;
        let finish = async {
            let finished = stream.finish().await;
            finished.map_err(|error| error::source(error, &object.name))
        };
        object.within(finish).await?;
        journal.sealed = Some(Seal {
            len: hashes.read(),
            checksum: hashes.object.unwrap_or_default().finish(),
            content_digest: hashes.content.finish(),
            version: None,
        });
        journal.save(object.store, &object.spec.object).await?;
        object.complete(self.progress, journal, &id, &parts, self.cancel).await
    }

    /// Reads the stream to its end, and puts it in parts.
    async fn copy(&self, stream: &mut dyn DiskStream, found: Found) -> Result<(Hashes, Vec<Part>, Journal), Error> {
        let object = &self.object;
        let parts = Parts::new(object.plan.part_size, None);
        let guest = Arc::clone(&parts.guest);
        let (most, capacity) = (object.plan.len, self.capacity);
        let expected = move |len: u64, _| expected(len, guest.load(Ordering::Relaxed), capacity, most);
        let to = Destination {
            store: object.store,
            key: &object.spec.object,
            id: &found.id,
            plan: object.plan,
            listed: found.listed,
            expected: &expected,
        };
        let hashes = Hashes {
            object: Some(ObjectHash::default()),
            content: ContentDigest::new(self.capacity),
        };
        let name = Name {
            object: object.name.clone(),
            damaged,
            unfit,
        };
        let unpacked = Pool::new(CHUNK as usize, 2 * lanes::count() + 4);
        let out = Out::File(parts.clone());
        let mut decoder = Some(Decoder::new(name, self.capacity));
        let threads = Unpacking::start(hashes, &mut decoder, out, self.capacity, &unpacked)?;
        let Unpacking { chunks, hashed, end } = threads;
        let mut upload = Upload::new(to, self.progress, found.journal, found.arrived);
        let feed = self.feed(stream, chunks, &parts);
        let (fed, put) = tokio::join!(feed, upload.run(hashed, self.cancel));
        // A failure to read ends the upload, too; what could not be unpacked ended both.
        let (hashes, decoder, unpacked) = end.place().await?;
        fed.and(unpacked).and(put)?;
        decoder.finish()?;
        let (parts, journal) = upload.into_parts();
        Ok((hashes, parts, journal))
    }

    /// Reads chunks one after the other. One is held back, so that the last one is known as such before it is given.
    async fn feed(
        &self,
        stream: &mut dyn DiskStream,
        chunks: Vec<mpsc::Sender<Chunk>>,
        parts: &Parts,
    ) -> Result<(), Error> {
        let Some(to) = chunks.first() else { return Ok(()) };
        let pool = Pool::new(CHUNK as usize, self.object.plan.chunks);
        let (mut offset, mut held) = (0, None);
        loop {
            let buf = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled(&self.object.name)),
                buf = self.read(stream, &pool) => buf?,
            };
            let (len, is_last) = (buf.len() as u64, buf.len() < CHUNK as usize);
            if offset + len > self.object.plan.len {
                return Err(self.too_long());
            }
            if is_last {
                parts.len.store(offset + len, Ordering::Release);
            }
            let before: Option<Chunk> = held.take();
            if len > 0 {
                let spans = Vec::new();
                held = Some(Chunk { offset, buf, spans });
                offset += len;
            }
            let after = if is_last { held.take() } else { None };
            for chunk in before.into_iter().chain(after) {
                // Whoever closed it knows why.
                if to.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn too_long(&self) -> Error {
        Error::new(
            Kind::Source(vmferry_provider::Kind::Failed),
            "stage",
            &*self.object.name,
        )
        .detail(format!(
            "the source said that it has {} bytes at most, and sends more",
            self.object.plan.len
        ))
    }

    async fn read(&self, stream: &mut dyn DiskStream, pool: &Pool) -> Result<Buf, Error> {
        let buf = pool.take(CHUNK as usize).await;
        let read = stream.read(buf).await;
        self.progress.alive();
        read.map_err(|error| error::source(error, &self.object.name))
    }
}

/// The length that the file is likely to have, if it has `len` bytes when the disk is done up to `guest`.
fn expected(len: u64, guest: u64, capacity: u64, most: u64) -> u64 {
    let whole = u128::from(len) * u128::from(capacity) / u128::from(guest.max(1));
    u64::try_from(whole).map_or(most, |whole| whole.clamp(len, most.max(len)))
}

/// What the hypervisor sends is not what it says, or did not come whole.
fn damaged(object: &str) -> Error {
    Error::new(
        Kind::Source(vmferry_provider::Kind::Failed),
        "read the disk for",
        object,
    )
}

/// What the hypervisor sends is whole, and nothing that can be staged.
fn unfit(object: &str) -> Error {
    Error::new(
        Kind::Source(vmferry_provider::Kind::Unsupported),
        "read the disk for",
        object,
    )
    .remedy("if the disk's size is no whole number of MiB, enlarge it to one; otherwise copy it with the hypervisor's own tools")
}
