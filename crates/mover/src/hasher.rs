//! Hashing in order, on a thread of its own: it is the one part of a transfer that a processor is busy with.

use tokio::sync::{mpsc, oneshot};
use vmferry_block::{ContentDigest, ContentState, ObjectHash, ObjectState};

use crate::chunk::Chunk;
use crate::{Error, Kind};

/// Chunks that may wait on either side of the thread.
const QUEUE: usize = 2;

/// Both hashes of a transfer, up to the same place.
#[derive(Clone)]
pub(crate) struct Hashes {
    /// Of the object; `None` where there is no object, only a disk.
    pub(crate) object: Option<ObjectHash>,
    /// Of the disk.
    pub(crate) content: ContentDigest,
}

/// Both hashes written down.
pub(crate) type States = (ObjectState, ContentState);

/// A chunk that was hashed.
pub(crate) struct Hashed {
    /// The chunk.
    pub(crate) chunk: Chunk,
    /// The hashes as of its end, where that is the end of a part.
    pub(crate) states: Option<States>,
}

/// The two ends of the thread, and what it leaves when the chunks end.
pub(crate) struct Hasher {
    /// Takes chunks in order. Dropping it ends the thread.
    pub(crate) chunks: mpsc::Sender<Chunk>,
    /// Gives them back in the same order.
    pub(crate) hashed: mpsc::Receiver<Hashed>,
    /// Gives the hashes of everything once `chunks` is dropped and `hashed` is empty.
    pub(crate) end: oneshot::Receiver<Hashes>,
}

impl Hasher {
    /// Starts the thread with hashes to go on from. It writes them down at every multiple of `part_size` and at `len`.
    pub(crate) fn start(hashes: Hashes, part_size: u64, len: u64) -> Result<Self, Error> {
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (outgoing, hashed) = mpsc::channel(QUEUE);
        let (leave, end) = oneshot::channel();
        let work = move || {
            let hashes = run(hashes, incoming, &outgoing, part_size, len);
            // Nobody may be there any more to hear it.
            let _ = leave.send(hashes);
        };
        std::thread::Builder::new()
            .name("hash".to_owned())
            .spawn(work)
            .map_err(|error| Error::new(Kind::Stalled, "start", "the hashing thread").source(error))?;
        Ok(Self { chunks, hashed, end })
    }
}

fn run(
    mut hashes: Hashes,
    mut incoming: mpsc::Receiver<Chunk>,
    outgoing: &mpsc::Sender<Hashed>,
    part_size: u64,
    len: u64,
) -> Hashes {
    while let Some(chunk) = incoming.blocking_recv() {
        if let Some(object) = &mut hashes.object {
            object.update(&chunk.buf);
        }
        for span in &chunk.spans {
            hashes.content.data(span.guest, chunk.bytes(span));
        }
        let at_part_end = chunk.end().is_multiple_of(part_size) || chunk.end() == len;
        let states = match &hashes.object {
            Some(object) if at_part_end => Some((object.save(), hashes.content.save())),
            _ => None,
        };
        if outgoing.blocking_send(Hashed { chunk, states }).is_err() {
            break;
        }
    }
    hashes
}

/// The error of a hashing thread that ended before its time.
pub(crate) fn died() -> Error {
    Error::new(Kind::Bug, "hash", "the disk").detail("the hashing thread ended early")
}
