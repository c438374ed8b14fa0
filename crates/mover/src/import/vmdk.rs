//! Reading a streamOptimized VMDK: one thread hashes it and finds its grains, several unpack them, one hashes the content.
//!
//! Grains must come in the order of the disk, as in all that is staged here: the volume is written front to back, and the content
//! digest is taken on the way.

use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{Buf, ContentDigest, ObjectHash, ObjectState, Pool};
use vmferry_image::vmdk::stream::{Limits, PackedGrain, Reader, ReaderState, Unpacker};

use super::corrupt;
use crate::Error;
use crate::chunk::{CHUNK, Chunk, Span};
use crate::hasher::{Hashed, Hashes, States, Vmdk, died, spawn};
use crate::lanes::{Gather, spread};

/// Chunks that may wait on either side.
const QUEUE: usize = 2;

/// A VMDK as far as it was read.
pub(super) struct Decoder {
    reader: Reader,
    /// The next byte of the object that the reader takes. The object's hash may be ahead of it.
    pub(super) at: u64,
    /// Where on the disk the next grain may start.
    next: u64,
}

impl Decoder {
    /// From the front.
    pub(super) fn new(object: &str) -> Self {
        Self {
            reader: Reader::new(object, Limits::default()),
            at: 0,
            next: 0,
        }
    }

    /// From where another one stopped.
    pub(super) fn restore(object: &str, state: &ReaderState, guest: u64) -> Option<Self> {
        Some(Self {
            reader: Reader::restore(object, Limits::default(), state)?,
            at: state.at,
            next: guest,
        })
    }

    /// Where it stands; `guest` bytes of the disk came.
    pub(super) fn save(&self, guest: u64) -> Vmdk {
        let state = Box::new(self.reader.save());
        Vmdk::Reader { state, guest }
    }

    /// The end of the object.
    pub(super) fn finish(self, object: &str) -> Result<(), Error> {
        let end = self.reader.finish().map(drop);
        end.map_err(|error| corrupt(object).source(error))
    }

    /// Takes the next bytes of the object, and gives their grains.
    fn push(&mut self, object: &str, bytes: &[u8], grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        let pushed = self.reader.push(bytes, grains);
        pushed.map_err(|error| corrupt(object).source(error))?;
        self.at += bytes.len() as u64;
        for grain in grains.iter() {
            if grain.guest < self.next || u64::from(grain.len) > CHUNK {
                return Err(corrupt(object).detail(format!("the grain at {} of the disk is out of order", grain.guest)));
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

/// The threads that read the file.
pub(super) struct Unpacking {
    /// Takes chunks of the object in order. Dropping it ends the threads.
    pub(super) chunks: Vec<mpsc::Sender<Chunk>>,
    /// Gives the content in order.
    pub(super) hashed: mpsc::Receiver<Hashed>,
    pub(super) end: End,
}

/// What the threads leave.
pub(super) struct End {
    front: oneshot::Receiver<(ObjectHash, Decoder, Result<(), Error>)>,
    back: oneshot::Receiver<(ContentDigest, Result<(), Error>)>,
}

impl End {
    /// How far everything came that was given, and what was wrong with it.
    pub(super) async fn place(self) -> Result<(Hashes, Decoder, Result<(), Error>), Error> {
        let (Ok((object, decoder, front)), Ok((content, back))) = (self.front.await, self.back.await) else {
            return Err(died());
        };
        let object = Some(object);
        Ok((Hashes { object, content }, decoder, front.and(back)))
    }
}

impl Unpacking {
    /// Starts the threads where `hashes` and `decoder` are. There is a mark at every multiple of `mark`, and at the object's
    /// end at `len`.
    pub(super) fn start(
        hashes: Hashes,
        decoder: Decoder,
        object: &str,
        (mark, len, capacity): (u64, u64, u64),
        pool: &Pool,
    ) -> Result<Self, Error> {
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (send, hashed) = mpsc::channel(QUEUE);
        let (leave_front, front) = oneshot::channel();
        let (leave_back, back) = oneshot::channel();
        let (pool, name) = (pool.clone(), object.to_owned());
        let make = move || {
            let (mut unpacker, pool, object) = (Unpacker::new(), pool.clone(), name.clone());
            move |batch: Batch| unpack(&mut unpacker, &pool, &object, batch)
        };
        let (ways, unpacked) = spread("unpack", make)?;
        let first = Front {
            object: hashes.object.unwrap_or_default(),
            decoder,
            name: object.to_owned(),
            mark,
            len,
        };
        let content = hashes.content;
        // Nobody may be there any more to hear what they leave.
        spawn("read-vmdk", move || drop(leave_front.send(first.run(incoming, &ways))))?;
        spawn("hash-content", move || {
            drop(leave_back.send(hash(content, capacity, unpacked, &send)));
        })?;
        let end = End { front, back };
        let chunks = vec![chunks];
        Ok(Self { chunks, hashed, end })
    }
}

/// The first thread.
struct Front {
    object: ObjectHash,
    decoder: Decoder,
    name: String,
    mark: u64,
    len: u64,
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
                    drop(chunk);
                    for (batch, way) in batches.into_iter().zip(&mut turns) {
                        if way.blocking_send(batch).is_err() {
                            break 'chunks;
                        }
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
        self.decoder.push(&self.name, &chunk.buf, &mut grains)?;
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
        let at_mark = new > 0 && (end == self.len || end / self.mark > before / self.mark);
        if let Some(last) = batches.last_mut() {
            last.done = new;
            last.mark = at_mark.then(|| (self.object.save(), self.decoder.reader.save()));
        }
        Ok(batches)
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

fn unpack(unpacker: &mut Unpacker, pool: &Pool, object: &str, batch: Batch) -> Unpacked {
    let len: usize = batch.grains.iter().map(|grain| grain.len as usize).sum();
    let mut buf = if len == 0 {
        Buf::alone(0)
    } else {
        block_on(pool.take(len))
    };
    let (mut at, mut spans) = (0, Vec::<Span>::new());
    for grain in &batch.grains {
        let got = unpacker.unpack(grain, &mut buf[at..]);
        let len = got.map_err(|error| corrupt(object).source(error))?;
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
    send: &mpsc::Sender<Hashed>,
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
