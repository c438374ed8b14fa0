//! Putting parts, several at once, and writing down which ones arrived.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmferry_block::Buf;
use vmferry_staging::{ObjectKey, Part, PartBody, StagingStore, UploadId};

use super::journal::{HashedPrefix, Journal};
use super::plan::Plan;
use crate::error::{cancelled, staging};
use crate::hasher::{Hashed, States};
use crate::progress::Progress;
use crate::{Error, Kind};

/// An upload under way.
pub(super) struct Upload<'a> {
    store: &'a dyn StagingStore,
    key: &'a ObjectKey,
    id: &'a UploadId,
    plan: Plan,
    progress: &'a Progress,
    object: String,
    journal: Journal,
    /// Parts that arrived.
    arrived: BTreeMap<u32, Part>,
    /// The hashes as of the end of parts that were hashed and are past the journal's prefix.
    states: BTreeMap<u32, States>,
    /// The pieces of the part that is being put together.
    pieces: Vec<Buf>,
}

/// What can end while an upload is under way.
enum Ended {
    Put(Result<Part, Error>),
    Noted(Result<(), Error>),
}

impl<'a> Upload<'a> {
    /// Goes on where `journal` stands.
    pub(super) fn new(
        store: &'a dyn StagingStore,
        key: &'a ObjectKey,
        id: &'a UploadId,
        plan: Plan,
        progress: &'a Progress,
        journal: Journal,
        arrived: BTreeMap<u32, Part>,
    ) -> Self {
        Self {
            store,
            key,
            id,
            plan,
            progress,
            object: store.url(key),
            journal,
            arrived,
            states: BTreeMap::new(),
            pieces: Vec::new(),
        }
    }

    /// Puts what comes out of `hashed` until it ends, or until it is called off. Whatever happens, the parts that are under way are waited for and the
    /// journal is written before this returns, so the next attempt misses none of them. The first failure is returned.
    pub(super) async fn run(
        &mut self,
        mut hashed: mpsc::Receiver<Hashed>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut under_way: FuturesUnordered<BoxFuture<'a, Ended>> = FuturesUnordered::new();
        let (mut putting, mut noting, mut dirty, mut open) = (0, false, false, true);
        // Parts that arrived and are not in the journal, and in the note that is being written.
        let (mut unnoted, mut in_note) = (0, 0);
        let mut failure = None;
        loop {
            if dirty && !noting {
                under_way.push(self.note());
                (dirty, noting) = (false, true);
                (unnoted, in_note) = (0, unnoted);
            }
            // A crash costs the parts that are under way and those that are not noted yet: together they stay few.
            let at_risk = putting + unnoted + in_note;
            let room = open && putting < self.plan.in_flight && at_risk <= self.plan.in_flight;
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled(), if open => {
                    failure.get_or_insert_with(|| cancelled(&self.object));
                    hashed.close();
                    open = false;
                    continue;
                }
                Some(ended) = under_way.next() => ended,
                next = hashed.recv(), if room => {
                    match next.map(|hashed| self.take(hashed)) {
                        Some(Ok(Some(put))) => {
                            under_way.push(put);
                            putting += 1;
                        }
                        Some(Ok(None)) => {}
                        Some(Err(error)) => (failure, open) = (Some(error), false),
                        None => open = false,
                    }
                    dirty |= self.advance();
                    continue;
                }
                else => break,
            };
            let outcome = match ended {
                Ended::Noted(outcome) => {
                    (noting, in_note) = (false, 0);
                    outcome
                }
                Ended::Put(outcome) => {
                    putting -= 1;
                    outcome.map(|part| {
                        self.arrive(part);
                        unnoted += 1;
                        dirty = true;
                    })
                }
            };
            if let Err(error) = outcome {
                failure.get_or_insert(error);
                // Whoever feeds us sees the closed channel and stops.
                hashed.close();
                open = false;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The parts that arrived, in order, and the journal as it stands.
    pub(super) fn into_parts(mut self) -> (Vec<Part>, Journal) {
        self.journal.set_arrived(&self.arrived);
        (self.arrived.into_values().collect(), self.journal)
    }

    /// Takes the next chunk; the part that it completes, unless that arrived before, is to be put.
    fn take(&mut self, hashed: Hashed) -> Result<Option<BoxFuture<'a, Ended>>, Error> {
        let Hashed { chunk, states } = hashed;
        let number = self.plan.part_of(chunk.offset);
        let is_missing = !self.arrived.contains_key(&number);
        if is_missing {
            self.pieces.push(chunk.buf);
        }
        let Some(states) = states else { return Ok(None) };
        self.states.insert(number, states);
        if !is_missing {
            return Ok(None);
        }
        let pieces: Arc<[Buf]> = std::mem::take(&mut self.pieces).into();
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if len != self.plan.part_len(number) {
            let detail = format!("{len} bytes were put together for part {number}");
            return Err(Error::new(Kind::Bug, "upload", self.object.clone()).detail(detail));
        }
        Ok(Some(self.put(number, pieces)))
    }

    fn put(&self, number: u32, pieces: Arc<[Buf]>) -> BoxFuture<'a, Ended> {
        let (store, key, id, offset) = (self.store, self.key, self.id, self.plan.start(number));
        let object = self.object.clone();
        Box::pin(async move {
            let put = store.put_part(key, id, number, offset, PartBody::held(pieces)).await;
            Ended::Put(put.map_err(staging("upload", &object)))
        })
    }

    fn note(&mut self) -> BoxFuture<'a, Ended> {
        self.journal.set_arrived(&self.arrived);
        let (journal, store, key) = (self.journal.clone(), self.store, self.key);
        Box::pin(async move { Ended::Noted(journal.save(store, key).await) })
    }

    fn arrive(&mut self, part: Part) {
        self.progress.advance(self.plan.part_len(part.number));
        self.arrived.insert(part.number, part);
        self.advance();
    }

    /// Moves the journal's prefix over the parts that were hashed and arrived without a gap; says whether it moved.
    fn advance(&mut self) -> bool {
        let mut next = self.journal.hashed.as_ref().map_or(0, |prefix| prefix.parts);
        let before = next;
        while self.arrived.contains_key(&next) && self.states.contains_key(&next) {
            if let Some((object, content)) = self.states.remove(&next) {
                let parts = next + 1;
                self.journal.hashed = Some(HashedPrefix { parts, object, content });
            }
            next += 1;
        }
        next != before
    }
}
