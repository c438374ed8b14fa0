//! Reading a streamOptimized VMDK: one thread hashes it and finds its grains, several unpack them, one hashes the content.
//!
//! What comes out is the content, for a volume, or the file itself as it came, for whoever wants just that.
//!
//! Grains must come in the order of the disk: the volume is written front to back, and the content digest is taken on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{Buf, ContentDigest, ContentState, ObjectHash, ObjectState, Pool};
use vmferry_image::vmdk::stream::{Facts, Limits, PackedGrain, Reader, ReaderState, Unpacker};

use crate::Error;
use crate::chunk::{CHUNK, Chunk, Span};
use crate::hasher::{Hashed, Hashes, States, Vmdk, died, spawn};
use crate::lanes::{Gather, spread};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Chunks that may wait on either side.
const QUEUE: usize = 2;

/// What a file is, for messages.
#[derive(Clone)]
pub(crate) struct Name {
    /// Its name.
    pub(crate) object: String,
    /// The failure of a file that is not what it should be.
    pub(crate) damaged: fn(&str) -> Error,
    /// The failure of one that is whole, and cannot be taken: it would be so again.
    pub(crate) unfit: fn(&str) -> Error,
}

impl Name {
    fn damaged(&self) -> Error {
        (self.damaged)(&self.object)
    }

    fn unfit(&self) -> Error {
        (self.unfit)(&self.object)
    }
}

/// A VMDK as far as it was read.
pub(crate) struct Decoder {
    name: Name,
    reader: Reader,
    /// The next byte of the object that the reader takes. The object's hash may be ahead of it.
    pub(crate) at: u64,
    /// Where on the disk the next grain may start.
    next: u64,
    /// What it must say that the disk has: whole sectors.
    capacity: u64,
}

/// What a file of a disk of `capacity` bytes may cost: no more than that disk, whatever the file says of itself.
fn limits(capacity: u64) -> Limits {
    Limits {
        capacity: whole(capacity),
    }
}

/// Bytes of a disk in whole sectors.
fn whole(capacity: u64) -> u64 {
    capacity.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX)
}

impl Decoder {
    /// From the front, of a disk of `capacity` bytes.
    pub(crate) fn new(name: Name, capacity: u64) -> Self {
        Self {
            reader: Reader::new(&name.object, limits(capacity)),
            name,
            at: 0,
            next: 0,
            capacity: whole(capacity),
        }
    }

    /// From where another one stopped.
    pub(crate) fn restore(name: Name, capacity: u64, state: &ReaderState, guest: u64) -> Option<Self> {
        Some(Self {
            reader: Reader::restore(&name.object, limits(capacity), state)?,
            name,
            at: state.at,
            next: guest,
            capacity: whole(capacity),
        })
    }

    /// Where it stands; `guest` bytes of the disk came.
    pub(crate) fn save(&self, guest: u64) -> Vmdk {
        let state = Box::new(self.reader.save());
        Vmdk::Reader { state, guest }
    }

    /// The end of the object: what is known of a file that is whole.
    pub(crate) fn finish(self) -> Result<Facts, Error> {
        let end = self.reader.finish();
        end.map_err(|error| self.name.damaged().source(error))
    }

    /// Takes the next bytes of the object, and gives their grains.
    fn push(&mut self, bytes: &[u8], grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        let pushed = self.reader.push(bytes, grains);
        pushed.map_err(|error| match error.kind() {
            vmferry_image::Kind::Unsupported => self.name.unfit().source(error),
            _ => self.name.damaged().source(error),
        })?;
        self.at += bytes.len() as u64;
        if let Some(found) = self.reader.capacity().filter(|found| *found != self.capacity) {
            let detail = format!("it is of a disk of {found} bytes, and the disk has {}", self.capacity);
            return Err(self.name.unfit().detail(detail));
        }
        for grain in grains.iter() {
            if grain.guest < self.next {
                let detail = format!("the grain at {} of the disk is out of order", grain.guest);
                return Err(self.name.unfit().detail(detail));
            }
            if u64::from(grain.len) > CHUNK {
                let detail = format!("the grain at {} of the disk has {} bytes", grain.guest, grain.len);
                return Err(self.name.unfit().detail(detail));
            }
            self.next = grain.guest + u64::from(grain.len);
        }
        Ok(())
    }
}

/// What is unpacked at once: no more than a chunk holds.
struct Batch {
    grains: Vec<PackedGrain>,
    /// Bytes of the object that are done with it.
    done: u64,
    /// The object as of its end, where that is one of the marks.
    mark: Option<(ObjectState, ReaderState)>,
}

/// The same, unpacked.
type Unpacked = Result<(Chunk, u64, Option<(ObjectState, ReaderState)>), Error>;

/// What comes out.
pub(crate) enum Out {
    /// The content of the disk. There is a mark at every multiple of so many bytes of the object, and at its end.
    Content { mark: u64, len: u64 },
    /// The file as it came.
    File(Parts),
}

/// Where the parts end of a file that is passed on.
#[derive(Clone)]
pub(crate) struct Parts {
    /// Size of every part but the last.
    pub(crate) size: u64,
    /// Length of the file, `u64::MAX` while nobody knows it; set before its last chunk is given.
    pub(crate) len: Arc<AtomicU64>,
    /// Up to where on the disk the file was read.
    pub(crate) guest: Arc<AtomicU64>,
}

impl Parts {
    /// Parts of a file whose length may not be known.
    pub(crate) fn new(size: u64, len: Option<u64>) -> Self {
        Self {
            size,
            len: Arc::new(AtomicU64::new(len.unwrap_or(u64::MAX))),
            guest: Arc::default(),
        }
    }

    fn end_at(&self, at: u64) -> bool {
        at.is_multiple_of(self.size) || at == self.len.load(Ordering::Acquire)
    }
}

/// The threads that read the file.
pub(crate) struct Unpacking {
    /// Takes chunks of the object in order. Dropping it ends the threads.
    pub(crate) chunks: Vec<mpsc::Sender<Chunk>>,
    /// Gives what comes out in order.
    pub(crate) hashed: mpsc::Receiver<Hashed>,
    pub(crate) end: End,
}

/// What the threads leave.
pub(crate) struct End {
    front: oneshot::Receiver<(ObjectHash, Decoder, Result<(), Error>)>,
    back: oneshot::Receiver<(ContentDigest, Result<(), Error>)>,
}

impl End {
    /// How far everything came that was given, and what was wrong with it.
    pub(crate) async fn place(self) -> Result<(Hashes, Decoder, Result<(), Error>), Error> {
        let (Ok((object, decoder, front)), Ok((content, back))) = (self.front.await, self.back.await) else {
            return Err(died());
        };
        let object = Some(object);
        Ok((Hashes { object, content }, decoder, front.and(back)))
    }
}

impl Unpacking {
    /// Starts the threads where `hashes` and `decoder` are, for a disk of `capacity` bytes. Its content is unpacked into buffers
    /// of `pool`. The decoder is taken only where all of them were started.
    pub(crate) fn start(
        hashes: Hashes,
        decoder: &mut Option<Decoder>,
        out: Out,
        capacity: u64,
        pool: &Pool,
    ) -> Result<Self, Error> {
        let Some(name) = decoder.as_ref().map(|decoder| decoder.name.clone()) else {
            return Err(died());
        };
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (send, hashed) = mpsc::channel(QUEUE);
        let (leave_front, front) = oneshot::channel();
        let (leave_back, back) = oneshot::channel();
        let pool = pool.clone();
        let make = move || {
            let (mut unpacker, pool, name) = (Unpacker::new(), pool.clone(), name.clone());
            move |batch: Batch| unpack(&mut unpacker, &pool, &name, batch)
        };
        let (ways, unpacked) = spread("unpack", make)?;
        let content = hashes.content;
        let (pass, send) = match &out {
            Out::File(_) => (Some(send), None),
            Out::Content { .. } => (None, Some(send)),
        };
        let (object, state) = (hashes.object.unwrap_or_default(), content.save());
        let (give, first) = std::sync::mpsc::channel();
        // Nobody may be there any more to hear what they leave.
        spawn("read-vmdk", move || {
            if let Ok(first) = first.recv() {
                drop(leave_front.send(Front::run(first, incoming, &ways)));
            }
        })?;
        spawn("hash-content", move || {
            drop(leave_back.send(hash(content, capacity, unpacked, send.as_ref())));
        })?;
        if let Some(decoder) = decoder.take() {
            let content = state;
            drop(give.send(Front {
                object,
                decoder,
                out,
                pass,
                content,
            }));
        }
        let end = End { front, back };
        let chunks = vec![chunks];
        Ok(Self { chunks, hashed, end })
    }
}

/// The first thread.
struct Front {
    object: ObjectHash,
    decoder: Decoder,
    out: Out,
    /// Where the file goes that is passed on.
    pass: Option<mpsc::Sender<Hashed>>,
    /// What stands for the content's hash at the end of a part of such a file: nobody goes on from there.
    content: ContentState,
}

impl Front {
    fn run(
        mut self,
        mut incoming: mpsc::Receiver<Chunk>,
        ways: &[mpsc::Sender<Batch>],
    ) -> (ObjectHash, Decoder, Result<(), Error>) {
        let mut turns = ways.iter().cycle();
        let mut outcome = Ok(());
        'chunks: while let Some(chunk) = incoming.blocking_recv() {
            match self.batches(&chunk) {
                Ok(batches) => {
                    let takes_more = self.pass_on(chunk);
                    for (batch, way) in batches.into_iter().zip(&mut turns) {
                        if way.blocking_send(batch).is_err() {
                            break 'chunks;
                        }
                    }
                    if !takes_more {
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        (self.object, self.decoder, outcome)
    }

    /// The grains of a chunk of the object. Always one batch at least, so that what is done is told.
    fn batches(&mut self, chunk: &Chunk) -> Result<Vec<Batch>, Error> {
        let (before, end) = (self.object.len(), chunk.end());
        let new = end.saturating_sub(before).min(chunk.buf.len() as u64);
        self.object.update(&chunk.buf[chunk.buf.len() - new as usize..]);
        let mut grains = Vec::new();
        self.decoder.push(&chunk.buf, &mut grains)?;
        let mut batches = vec![Batch::new()];
        let mut filled = 0;
        for grain in grains {
            if filled + u64::from(grain.len) > CHUNK {
                batches.push(Batch::new());
                filled = 0;
            }
            filled += u64::from(grain.len);
            if let Some(batch) = batches.last_mut() {
                batch.grains.push(grain);
            }
        }
        let at_mark = match self.out {
            Out::Content { mark, len } => new > 0 && (end == len || end / mark > before / mark),
            Out::File(_) => false,
        };
        if let Some(last) = batches.last_mut() {
            last.done = new;
            last.mark = at_mark.then(|| (self.object.save(), self.decoder.reader.save()));
        }
        Ok(batches)
    }

    /// Passes the chunk on, where it is the file that comes out. Says whether anybody takes more.
    fn pass_on(&self, chunk: Chunk) -> bool {
        let (Some(pass), Out::File(parts)) = (&self.pass, &self.out) else {
            return true;
        };
        parts.guest.store(self.decoder.next, Ordering::Relaxed);
        let states = parts.end_at(chunk.end()).then(|| States {
            object: self.object.save(),
            content: self.content.clone(),
            vmdk: None,
        });
        let done = chunk.buf.len() as u64;
        pass.blocking_send(Hashed { chunk, done, states }).is_ok()
    }
}

impl Batch {
    fn new() -> Self {
        Self {
            grains: Vec::new(),
            done: 0,
            mark: None,
        }
    }
}

fn unpack(unpacker: &mut Unpacker, pool: &Pool, name: &Name, batch: Batch) -> Unpacked {
    let len: usize = batch.grains.iter().map(|grain| grain.len as usize).sum();
    let mut buf = if len == 0 {
        Buf::alone(0)
    } else {
        block_on(pool.take(len))
    };
    let (mut at, mut spans) = (0, Vec::<Span>::new());
    for grain in &batch.grains {
        let got = unpacker.unpack(grain, &mut buf[at..]);
        let len = got.map_err(|error| name.damaged().source(error))?;
        match spans.last_mut() {
            Some(last) if last.guest + last.len as u64 == grain.guest => last.len += len,
            _ => spans.push(Span {
                at,
                len,
                guest: grain.guest,
            }),
        }
        at += len;
    }
    let chunk = Chunk { offset: 0, buf, spans };
    Ok((chunk, batch.done, batch.mark))
}

/// The last thread.
fn hash(
    mut content: ContentDigest,
    capacity: u64,
    mut unpacked: Gather<Unpacked>,
    send: Option<&mpsc::Sender<Hashed>>,
) -> (ContentDigest, Result<(), Error>) {
    while let Some(next) = unpacked.next() {
        let (mut chunk, done, mark) = match next {
            Ok(next) => next,
            Err(error) => return (content, Err(error)),
        };
        for span in &mut chunk.spans {
            // The last sector of the disk may not be whole.
            span.len = span.len.min(capacity.saturating_sub(span.guest) as usize);
            content.data(span.guest, &chunk.buf[span.at..span.at + span.len]);
        }
        let Some(send) = send else { continue };
        let states = mark.map(|(object, reader)| States {
            object,
            content: content.save(),
            vmdk: Some(Vmdk::Reader {
                state: Box::new(reader),
                guest: content.position(),
            }),
        });
        if send.blocking_send(Hashed { chunk, done, states }).is_err() {
            break;
        }
    }
    (content, Ok(()))
}
