//! Hashing in order, on threads of their own: it is the one part of a transfer that a processor is busy with.
//!
//! The object's hash is the slower one, and nothing can be done about that: SHA-256 is one chain from the first byte to the last. So
//! the content is hashed by a second thread, which gets each chunk from the first.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{ContentDigest, ContentState, ObjectHash, ObjectState};
use vmferry_image::vmdk::stream::{ReaderState, WriterState};

use crate::chunk::Chunk;
use crate::{Error, Kind};

/// Chunks that may wait before and behind each thread.
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
pub(crate) struct End(oneshot::Receiver<Hashes>);

impl End {
    /// The hashes of everything that came.
    pub(crate) async fn hashes(self) -> Result<Hashes, Error> {
        self.0.await.map_err(|_| died())
    }
}

impl Hasher {
    /// Starts the threads with hashes to go on from. They write them down at every multiple of `mark` in the object and at `len`.
    pub(crate) fn start(hashes: Hashes, mark: u64, len: u64) -> Result<Self, Error> {
        let Hashes { object, content } = hashes;
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (half, halfway) = mpsc::channel(QUEUE);
        let (outgoing, hashed) = mpsc::channel(QUEUE);
        let (leave, end) = oneshot::channel();
        let fresh = object.clone();
        spawn("hash", move || hash_object(object, incoming, &half))?;
        spawn("content", move || {
            let hashes = Hashes { object: fresh, content };
            // Nobody may be there any more to hear what it leaves.
            drop(leave.send(hash_content(hashes, halfway, &outgoing, mark, len)));
        })?;
        Ok(Self {
            chunks: vec![chunks],
            hashed,
            end: End(end),
        })
    }
}

/// Hashes the object, and gives on each chunk with the hash as of its end.
fn hash_object(
    mut object: Option<ObjectHash>,
    mut incoming: mpsc::Receiver<Chunk>,
    half: &mpsc::Sender<(Chunk, Option<ObjectHash>)>,
) {
    while let Some(chunk) = incoming.blocking_recv() {
        if let Some(object) = &mut object {
            object.update(&chunk.buf);
        }
        if half.blocking_send((chunk, object.clone())).is_err() {
            break;
        }
    }
}

/// Hashes the content of chunks that come with the object's hash. What it leaves is both, as of the last chunk that it had.
fn hash_content(
    mut hashes: Hashes,
    mut halfway: mpsc::Receiver<(Chunk, Option<ObjectHash>)>,
    outgoing: &mpsc::Sender<Hashed>,
    mark: u64,
    len: u64,
) -> Hashes {
    while let Some((chunk, object)) = halfway.blocking_recv() {
        hashes.object = object;
        for span in &chunk.spans {
            hashes.content.data(span.guest, chunk.bytes(span));
        }
        let at_mark = chunk.end().is_multiple_of(mark) || chunk.end() == len;
        let states = if at_mark { hashes.states() } else { None };
        let done = chunk.buf.len() as u64;
        if outgoing.blocking_send(Hashed { chunk, done, states }).is_err() {
            break;
        }
    }
    hashes
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmferry_block::Buf;

    use super::*;
    use crate::chunk::Span;

    /// A chunk whose content is all of it but for a gap.
    fn chunk(offset: u64, len: usize, gap: std::ops::Range<usize>) -> Chunk {
        let mut buf = Buf::alone(len);
        for (at, byte) in buf.iter_mut().enumerate() {
            *byte = ((offset as usize + at) % 251) as u8;
        }
        let span = |at, len| Span {
            at,
            len,
            guest: offset + at as u64,
        };
        let spans = vec![span(0, gap.start), span(gap.end, len - gap.end)];
        Chunk { offset, buf, spans }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_hashes_are_of_the_same_place(count in 1u64..12, marks in 1u64..4, taken in 0u64..12) {
            const LEN: usize = 8192;
            let len = count * LEN as u64;
            let fresh = Hashes { object: Some(ObjectHash::default()), content: ContentDigest::new(1 << 30) };
            let chunks = || (0..count).map(|at| chunk(at * LEN as u64, LEN, 100..4096));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (states, left) = runtime.block_on(async {
                let Hasher { chunks: to, mut hashed, end } = Hasher::start(fresh.clone(), marks * LEN as u64, len).unwrap();
                let feed = async {
                    for chunk in chunks() {
                        if to[0].send(chunk).await.is_err() {
                            break;
                        }
                    }
                    drop(to);
                };
                let take = async {
                    let mut states = Vec::new();
                    while (states.len() as u64) < taken && let Some(hashed) = hashed.recv().await {
                        states.push((hashed.chunk.end(), hashed.states));
                    }
                    drop(hashed);
                    states
                };
                let ((), states) = tokio::join!(feed, take);
                (states, end.hashes().await.unwrap())
            });
            // The same, by one after the other.
            let mut own = vec![(0, fresh)];
            for chunk in chunks() {
                let (_, mut hashes) = own.last().unwrap().clone();
                hashes.object.as_mut().unwrap().update(&chunk.buf);
                for span in &chunk.spans {
                    hashes.content.data(span.guest, chunk.bytes(span));
                }
                own.push((chunk.end(), hashes));
            }
            for ((end, states), (_, own)) in states.iter().zip(&own[1..]) {
                let expected = end.is_multiple_of(marks * LEN as u64) || *end == len;
                prop_assert_eq!(states, &own.states().filter(|_| expected));
            }
            let (_, own) = own.iter().find(|(end, _)| *end == left.read()).unwrap();
            prop_assert_eq!(left.states(), own.states());
            prop_assert!(taken < count || left.read() == len);
        }
    }
}
