//! One pass over the staged object, and again after what passes.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmferry_block::{Buf, Pool};

use super::content::{self, Content};
use super::place::Place;
use super::write::Writer;
use super::{Import, Output, STALL};
use crate::chunk::{CHUNK, Chunk, feed};
use crate::error::staging;
use crate::hasher::Hasher;
use crate::lanes;
use crate::progress::{Progress, SLOWEST};
use crate::unpack::{Out, Parts, Unpacking};
use crate::{Error, Kind};

/// Bytes that are asked for at once: a request costs much, wherever the store is.
const RANGE: u64 = 4 << 20;
/// The least memory that an import can do with, and the most that it has a use for.
const LEAST: u64 = 24 << 20;
const MOST: u64 = 48 << 20;

impl Import {
    /// Reads all that is left of the object and writes it.
    pub(super) async fn all(
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
            let Some(outcome) = progress.watch_stopping(&self.object, self.stall(), &stop, pass).await else {
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
            && let Ok(Err(error)) = tokio::time::timeout(self.answer(), writer.note(states)).await
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
        match &self.content {
            Content::Packed(_) => self.unpack(place, output, progress, stop).await,
            Content::Runs(_) => self.copy(place, output, progress, stop).await,
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
        let hashes = end.hashes().await?;
        // Whatever was hashed was written, unless that failed.
        written?;
        place.hashes = hashes;
        read
    }

    /// Reads what is packed.
    async fn unpack(
        &self,
        place: &mut Place,
        output: &mut Output<'_>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let Some(from) = place.decoder.as_ref().map(|decoder| decoder.at) else {
            return Err(Error::new(Kind::Bug, "read", &*self.object).detail("nobody knows where its reader is"));
        };
        let half = self.chunks() / 2;
        let unpacked = Pool::new(CHUNK as usize, half.max(2 * lanes::count() + 2));
        let (mark, len) = (self.tuning.mark, self.meta.len);
        let out = match output {
            Output::Volume(_) => Out::Content { mark, len },
            Output::Object(_) => Out::File(Parts::new(len, Some(len))),
        };
        let threads = Unpacking::start(
            place.hashes.clone(),
            &mut place.decoder,
            out,
            self.spec.capacity,
            &unpacked,
        )?;
        let Unpacking { chunks, hashed, end } = threads;
        let feed = self.feed(from, chunks, half, progress, stop);
        let (read, written) = tokio::join!(feed, output.run(hashed));
        let (hashes, decoder, outcome) = end.place().await?;
        written?;
        outcome?;
        place.hashes = hashes;
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

    /// How long no sign of life may come: the store gives one with each range that is whole, and on a slow way all of them come at the
    /// same time. Connections over which nothing comes are given up by the store itself, and sooner.
    fn stall(&self) -> Duration {
        let slow = Duration::from_secs((self.chunks() as u64 * CHUNK) / SLOWEST);
        self.tuning.stall.unwrap_or(STALL + slow)
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
}
