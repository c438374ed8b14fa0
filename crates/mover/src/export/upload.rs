//! Putting parts, several at once, and writing down which ones arrived.
//!
//! A kill costs the parts that are under way, and no more. A store that lists its parts knows which arrived, so notes only
//! save reading and hashing and are written now and then. Where the store keeps no list, a part counts as under way until a
//! note tells of it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmferry_block::Buf;
use vmferry_staging::{ObjectKey, Part, PartBody, StagingStore, UploadId};

use super::journal::{HashedPrefix, Journal};
use super::plan::Plan;
use crate::error::{cancelled, staging};
use crate::hasher::{Hashed, States, Vmdk};
use crate::progress::Progress;
use crate::{Error, Kind};

/// How much may arrive, and how long it may take, before it is noted for a store that lists its parts.
const NOTE_BYTES: u64 = 64 << 20;
const NOTE_AFTER: Duration = Duration::from_secs(5);
/// Chunks of a part that flows past which wait for the store.
const FLOWING: usize = 4;

/// What is uploaded, and where to.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) store: &'a dyn StagingStore,
    pub(super) key: &'a ObjectKey,
    pub(super) id: &'a UploadId,
    pub(super) plan: Plan,
    /// Whether the store lists the parts that arrived.
    pub(super) listed: bool,
    /// The length that an object is likely to have which has so many bytes when the disk is done up to there.
    pub(super) expected: &'a (dyn Fn(u64, u64) -> u64 + Sync),
}

/// An upload under way.
pub(super) struct Upload<'a> {
    to: Destination<'a>,
    progress: &'a Progress,
    object: String,
    journal: Journal,
    /// Parts that arrived.
    arrived: BTreeMap<u32, Part>,
    /// The hashes as of the end of parts that were hashed and are past the journal's prefix.
    states: BTreeMap<u32, States>,
    /// The pieces of the part that is being put together.
    pieces: Vec<Buf>,
    /// A part that waits until it may be put.
    ready: Option<(u32, PartBody)>,
    /// The part that flows past.
    flow: Option<Flow>,
    under_way: FuturesUnordered<BoxFuture<'a, Ended>>,
    /// What the store does by itself, and whether there is more of it to do.
    settling: Option<BoxFuture<'a, Result<(), Error>>>,
    unsettled: bool,
    count: Count,
    failure: Option<Error>,
}

/// What is under way.
struct Count {
    putting: usize,
    noting: bool,
    /// Whether there is something to note.
    dirty: bool,
    /// Parts that arrived and are not in the journal, and in the note that is being written.
    unnoted: usize,
    in_note: usize,
    /// When the last note was begun, and how much had arrived by then.
    noted: (Instant, u64),
}

/// The way of a part that is too large to be held.
struct Flow {
    pieces: mpsc::Sender<Buf>,
    next: Option<Buf>,
    left: u64,
}

/// What can end while an upload is under way.
enum Ended {
    /// The part and its length.
    Put(Result<(Part, u64), Error>),
    Noted(Result<(), Error>),
}

/// What happens next.
enum Next {
    Off,
    Ended(Ended),
    /// The part that flows past takes one more piece, or none any more.
    Flows(Option<OwnedPermit<Buf>>),
    Settled(Result<(), Error>),
    Hashed(Option<Hashed>),
    Nothing,
}

impl<'a> Upload<'a> {
    /// Goes on where `journal` stands.
    pub(super) fn new(
        to: Destination<'a>,
        progress: &'a Progress,
        journal: Journal,
        arrived: BTreeMap<u32, Part>,
    ) -> Self {
        Self {
            to,
            progress,
            object: to.store.url(to.key),
            journal,
            arrived,
            states: BTreeMap::new(),
            pieces: Vec::new(),
            ready: None,
            flow: None,
            under_way: FuturesUnordered::new(),
            settling: None,
            // What an earlier attempt left may be due.
            unsettled: true,
            count: Count {
                putting: 0,
                noting: false,
                dirty: false,
                unnoted: 0,
                in_note: 0,
                noted: (Instant::now(), progress.moved()),
            },
            failure: None,
        }
    }

    /// Puts what comes out of `hashed` until it ends, or until it is called off. Whatever happens, the parts that are under
    /// way are waited for and the journal is written before this returns, so the next attempt misses none of them. The first
    /// failure is returned.
    pub(super) async fn run(
        &mut self,
        mut hashed: mpsc::Receiver<Hashed>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut open = true;
        loop {
            self.start(open);
            match self.next(&mut hashed, cancel, open).await {
                Next::Off => self.fail(cancelled(&self.object)),
                Next::Ended(Ended::Noted(outcome)) => {
                    (self.count.noting, self.count.in_note) = (false, 0);
                    outcome.unwrap_or_else(|error| self.fail(error));
                }
                Next::Ended(Ended::Put(outcome)) => {
                    self.count.putting -= 1;
                    match outcome {
                        Ok((part, len)) => self.arrive(part, len),
                        Err(error) => self.fail(error),
                    }
                }
                Next::Flows(permit) => self.flows(permit),
                Next::Settled(outcome) => {
                    self.settling = None;
                    outcome.unwrap_or_else(|error| self.fail(error));
                }
                Next::Hashed(Some(next)) => self.take(next).unwrap_or_else(|error| self.fail(error)),
                Next::Hashed(None) => {
                    open = false;
                    // A part that was not made to its end fails now.
                    self.flow = None;
                }
                Next::Nothing => break,
            }
            if self.failure.is_some() {
                // The next attempt does it again.
                self.settling = None;
            }
            if open && self.failure.is_some() {
                // Whoever feeds us sees the closed channel and stops.
                hashed.close();
                (open, self.flow, self.ready) = (false, None, None);
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    async fn next(&mut self, hashed: &mut mpsc::Receiver<Hashed>, cancel: &CancellationToken, open: bool) -> Next {
        let flow = self.flow.as_ref().filter(|flow| flow.next.is_some());
        let takes = open && self.ready.is_none() && flow.is_none();
        let pieces = flow.map(|flow| flow.pieces.clone());
        let flows = async {
            match pieces {
                Some(pieces) => pieces.reserve_owned().await.ok(),
                None => std::future::pending().await,
            }
        };
        let is_settling = self.settling.is_some();
        let settling = async {
            match &mut self.settling {
                Some(settling) => settling.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled(), if open || is_settling => Next::Off,
            Some(ended) = self.under_way.next() => Next::Ended(ended),
            settled = settling, if is_settling => Next::Settled(settled),
            permit = flows, if open && flow.is_some() => Next::Flows(permit),
            next = hashed.recv(), if takes => Next::Hashed(next),
            else => Next::Nothing,
        }
    }

    /// Begins what is due: what the store has to do, a note, a part.
    fn start(&mut self, open: bool) {
        let joins = open && self.to.plan.joined && self.failure.is_none();
        if joins && self.unsettled && self.settling.is_none() {
            self.unsettled = false;
            self.settling = Some(self.settle());
        }
        let (count, listed) = (&mut self.count, self.to.listed);
        // At the end without a failure, what comes next notes everything.
        let at_end = !open && self.ready.is_none() && count.putting == 0;
        let due = if at_end {
            self.failure.is_some()
        } else {
            let (since, before) = count.noted;
            !listed || self.progress.moved() - before >= NOTE_BYTES || since.elapsed() >= NOTE_AFTER
        };
        if count.dirty && due && !count.noting {
            (count.dirty, count.noting) = (false, true);
            (count.unnoted, count.in_note) = (0, count.unnoted);
            count.noted = (Instant::now(), self.progress.moved());
            let note = self.note();
            self.under_way.push(note);
        }
        let count = &self.count;
        let at_risk = if listed { 0 } else { count.unnoted + count.in_note };
        if count.putting + at_risk < self.to.plan.in_flight
            && let Some((number, body)) = self.ready.take()
        {
            let put = self.put(number, body);
            self.under_way.push(put);
            self.count.putting += 1;
        }
    }

    /// The parts that arrived, in order, and the journal as it stands.
    pub(super) fn into_parts(mut self) -> (Vec<Part>, Journal) {
        self.set_arrived();
        (self.arrived.into_values().collect(), self.journal)
    }

    /// Takes the next chunk. The part that it completes is ready to be put, unless that arrived before.
    fn take(&mut self, hashed: Hashed) -> Result<(), Error> {
        let Hashed { chunk, states, .. } = hashed;
        let number = self.to.plan.part_of(chunk.offset);
        let is_missing = !self.arrived.contains_key(&number);
        if let Some(states) = states {
            if !self.to.plan.exact {
                let guest = match states.vmdk {
                    Some(Vmdk::Writer { guest, .. }) => guest,
                    _ => 0,
                };
                self.progress.expect((self.to.expected)(states.object.len, guest));
            }
            self.states.insert(number, states);
            if is_missing && !self.to.plan.flowing {
                self.pieces.push(chunk.buf);
                let body = PartBody::held(std::mem::take(&mut self.pieces));
                self.check(number, body.len())?;
                self.ready = Some((number, body));
                return Ok(());
            }
            self.advance();
        }
        match &mut self.flow {
            _ if !is_missing => {}
            Some(flow) => flow.next = Some(chunk.buf),
            None if self.to.plan.flowing => {
                let (pieces, flowing) = mpsc::channel(FLOWING);
                let left = self.to.plan.part_len(number);
                self.ready = Some((number, PartBody::flowing(left, flowing)));
                let next = Some(chunk.buf);
                self.flow = Some(Flow { pieces, next, left });
            }
            None => self.pieces.push(chunk.buf),
        }
        Ok(())
    }

    /// Gives the part that flows past its next piece. Where it takes none any more, its put says why.
    fn flows(&mut self, permit: Option<OwnedPermit<Buf>>) {
        let Some(flow) = &mut self.flow else { return };
        let piece = flow.next.take();
        if let (Some(permit), Some(piece)) = (permit, piece) {
            flow.left = flow.left.saturating_sub(piece.len() as u64);
            self.progress.alive();
            permit.send(piece);
        }
        if flow.left == 0 {
            self.flow = None;
        }
    }

    fn check(&self, number: u32, len: u64) -> Result<(), Error> {
        let most = self.to.plan.part_len(number);
        if len == most || (!self.to.plan.exact && len < most) {
            return Ok(());
        }
        let detail = format!("{len} bytes were put together for part {number}");
        Err(Error::new(Kind::Bug, "upload", self.object.clone()).detail(detail))
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    fn put(&self, number: u32, body: PartBody) -> BoxFuture<'a, Ended> {
        let Destination {
            store, key, id, plan, ..
        } = self.to;
        let (offset, len, object) = (plan.start(number), body.len(), self.object.clone());
        Box::pin(async move {
            let put = store.put_part(key, id, number, offset, body).await;
            Ended::Put(put.map(|part| (part, len)).map_err(staging("upload", &object)))
        })
    }

    fn settle(&self) -> BoxFuture<'a, Result<(), Error>> {
        let Destination { store, key, id, .. } = self.to;
        let (progress, object) = (self.progress, self.object.clone());
        Box::pin(async move {
            let settled = store.settle(key, id, None, &|| progress.alive()).await;
            settled.map_err(staging("upload", &object))
        })
    }

    fn note(&mut self) -> BoxFuture<'a, Ended> {
        self.set_arrived();
        let (journal, store, key) = (self.journal.clone(), self.to.store, self.to.key);
        Box::pin(async move { Ended::Noted(journal.save(store, key).await) })
    }

    /// Puts down which parts arrived, where the store does not know it.
    fn set_arrived(&mut self) {
        if !self.to.listed {
            self.journal.set_arrived(&self.arrived);
        }
    }

    fn arrive(&mut self, part: Part, len: u64) {
        self.progress.advance(len);
        self.arrived.insert(part.number, part);
        self.advance();
        self.unsettled = true;
        self.count.unnoted += 1;
        self.count.dirty = true;
    }

    /// Moves the journal's prefix over the parts that were hashed and arrived without a gap.
    fn advance(&mut self) {
        let before = self.journal.hashed.as_ref().map_or(0, |prefix| prefix.parts);
        let mut next = before;
        while self.arrived.contains_key(&next)
            && let Some(states) = self.states.remove(&next)
        {
            next += 1;
            self.journal.hashed = Some(HashedPrefix { parts: next, states });
        }
        self.count.dirty |= next != before;
    }
}
