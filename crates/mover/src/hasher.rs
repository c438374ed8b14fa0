//! Hashing in order, on threads of its own: it is the one part of a transfer that a processor is busy with.
//!
//! One thread hashes the object, the next one the disk's content, so that two processors share the work.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{ContentDigest, ContentState, ObjectHash, ObjectState};
use vmferry_image::vmdk::stream::{ReaderState, WriterState};

use crate::chunk::Chunk;
use crate::{Error, Kind};

/// Chunks that may wait on either side of a thread.
const QUEUE: usize = 2;

/// Both hashes of a transfer, up to the same place.
#[derive(Clone)]
pub(crate) struct Hashes {
    /// Of the object; `None` where there is no object, only a disk.
    pub(crate) object: Option<ObjectHash>,
    /// Of the disk.
    pub(crate) content: ContentDigest,
}

impl Hashes {
    /// How much of the object was hashed.
    pub(crate) fn read(&self) -> u64 {
        self.object.as_ref().map_or(0, ObjectHash::len)
    }

    /// Both written down; `None` where there is no object.
    pub(crate) fn states(&self) -> Option<States> {
        Some(States {
            object: self.object.as_ref()?.save(),
            content: self.content.save(),
            vmdk: None,
        })
    }
}

/// A place in a transfer written down, to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct States {
    /// SHA-256 of the object.
    pub(crate) object: ObjectState,
    /// Content digest of the disk, up to a whole leaf.
    pub(crate) content: ContentState,
    /// Where a VMDK stands. It may be some bytes behind the object's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vmdk: Option<Vmdk>,
}

/// A VMDK that is written or read in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Vmdk {
    /// It is written; the disk's data before `guest` is in it.
    Writer { state: Box<WriterState>, guest: u64 },
    /// It is read; the disk's data before `guest` came.
    Reader { state: Box<ReaderState>, guest: u64 },
}

/// A chunk that was hashed.
pub(crate) struct Hashed {
    /// The chunk.
    pub(crate) chunk: Chunk,
    /// Bytes of the object that are done with it.
    pub(crate) done: u64,
    /// The place as of its end, where that is one of the marks.
    pub(crate) states: Option<States>,
}

/// The two ends of the threads, and what they leave when the chunks end.
pub(crate) struct Hasher {
    /// Takes chunks in order. Dropping it ends the threads.
    pub(crate) chunks: Vec<mpsc::Sender<Chunk>>,
    /// Gives them back in the same order.
    pub(crate) hashed: mpsc::Receiver<Hashed>,
    /// Gives the hashes of everything once `chunks` is dropped and `hashed` is empty.
    pub(crate) end: End,
}

/// What the threads leave.
pub(crate) struct End {
    object: oneshot::Receiver<Option<ObjectHash>>,
    content: oneshot::Receiver<ContentDigest>,
}

impl End {
    /// The hashes of everything that came.
    pub(crate) async fn hashes(self) -> Result<Hashes, Error> {
        match (self.object.await, self.content.await) {
            (Ok(object), Ok(content)) => Ok(Hashes { object, content }),
            _ => Err(died()),
        }
    }
}

/// Between the threads: a chunk, and the object's hash as of its end where that is a mark.
type Half = (Chunk, Option<ObjectState>);

impl Hasher {
    /// Starts the threads with hashes to go on from. They write them down at every multiple of `mark` in the object and at `len`.
    pub(crate) fn start(hashes: Hashes, mark: u64, len: u64) -> Result<Self, Error> {
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (halves, between) = mpsc::channel(QUEUE);
        let (outgoing, hashed) = mpsc::channel(QUEUE);
        let (leave_object, object) = oneshot::channel();
        let (leave_content, content) = oneshot::channel();
        let Hashes {
            object: first,
            content: second,
        } = hashes;
        // Nobody may be there any more to hear what they leave.
        spawn("hash-object", move || {
            drop(leave_object.send(hash_object(first, incoming, &halves, mark, len)));
        })?;
        spawn("hash-content", move || {
            drop(leave_content.send(hash_content(second, between, &outgoing)));
        })?;
        let end = End { object, content };
        Ok(Self {
            chunks: vec![chunks],
            hashed,
            end,
        })
    }
}

fn hash_object(
    mut object: Option<ObjectHash>,
    mut incoming: mpsc::Receiver<Chunk>,
    outgoing: &mpsc::Sender<Half>,
    mark: u64,
    len: u64,
) -> Option<ObjectHash> {
    while let Some(chunk) = incoming.blocking_recv() {
        let at_mark = chunk.end().is_multiple_of(mark) || chunk.end() == len;
        let state = object.as_mut().and_then(|object| {
            object.update(&chunk.buf);
            at_mark.then(|| object.save())
        });
        if outgoing.blocking_send((chunk, state)).is_err() {
            break;
        }
    }
    object
}

fn hash_content(
    mut content: ContentDigest,
    mut incoming: mpsc::Receiver<Half>,
    outgoing: &mpsc::Sender<Hashed>,
) -> ContentDigest {
    while let Some((chunk, object)) = incoming.blocking_recv() {
        for span in &chunk.spans {
            content.data(span.guest, chunk.bytes(span));
        }
        let states = object.map(|object| States {
            object,
            content: content.save(),
            vmdk: None,
        });
        let done = chunk.buf.len() as u64;
        if outgoing.blocking_send(Hashed { chunk, done, states }).is_err() {
            break;
        }
    }
    content
}

/// Starts a thread for one stage of a transfer. It ends when what it reads from or writes to is closed.
pub(crate) fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started
        .map(drop)
        .map_err(|error| Error::new(Kind::Stalled, "start", format!("the thread {name}")).source(error))
}

/// The error of a thread that ended before its time.
pub(crate) fn died() -> Error {
    Error::new(Kind::Bug, "hash", "the disk").detail("a thread of the transfer ended early")
}
