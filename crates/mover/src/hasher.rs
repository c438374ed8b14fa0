//! Hashing in order, on a thread of its own: it is the one part of a transfer that a processor is busy with.
//!
//! The same thread hashes the object and the disk's content, a slice after the other, so that the second hash finds the slice
//! where the first has just brought it: in the processor's own cache.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{ContentDigest, ContentState, ObjectHash, ObjectState};
use vmferry_image::vmdk::stream::{ReaderState, WriterState};

use crate::chunk::Chunk;
use crate::{Error, Kind};

/// Chunks that may wait on either side of the thread.
const QUEUE: usize = 2;
/// Bytes that both hashes take by turns: few enough for the caches, many enough for BLAKE3 to be fast.
const SLICE: usize = 128 << 10;

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

    /// Hashes the next chunk, slice by slice.
    fn take(&mut self, chunk: &Chunk) {
        let (mut spans, mut fed) = (chunk.spans.iter().peekable(), 0);
        for start in (0..chunk.buf.len()).step_by(SLICE) {
            let end = (start + SLICE).min(chunk.buf.len());
            if let Some(object) = &mut self.object {
                object.update(&chunk.buf[start..end]);
            }
            while let Some(span) = spans.peek().filter(|span| span.at + fed < end) {
                let until = (end - span.at).min(span.len);
                self.content
                    .data(span.guest + fed as u64, &chunk.bytes(span)[fed..until]);
                fed = until;
                if fed < span.len {
                    break;
                }
                (_, fed) = (spans.next(), 0);
            }
        }
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

/// The two ends of the thread, and what it leaves when the chunks end.
pub(crate) struct Hasher {
    /// Takes chunks in order. Dropping it ends the thread.
    pub(crate) chunks: Vec<mpsc::Sender<Chunk>>,
    /// Gives them back in the same order.
    pub(crate) hashed: mpsc::Receiver<Hashed>,
    /// Gives the hashes of everything once `chunks` is dropped and `hashed` is empty.
    pub(crate) end: End,
}

/// What the thread leaves.
pub(crate) struct End(oneshot::Receiver<Hashes>);

impl End {
    /// The hashes of everything that came.
    pub(crate) async fn hashes(self) -> Result<Hashes, Error> {
        self.0.await.map_err(|_| died())
    }
}

impl Hasher {
    /// Starts the thread with hashes to go on from. It writes them down at every multiple of `mark` in the object and at `len`.
    pub(crate) fn start(hashes: Hashes, mark: u64, len: u64) -> Result<Self, Error> {
        let (chunks, incoming) = mpsc::channel(QUEUE);
        let (outgoing, hashed) = mpsc::channel(QUEUE);
        let (leave, end) = oneshot::channel();
        // Nobody may be there any more to hear what it leaves.
        spawn("hash", move || {
            drop(leave.send(hash(hashes, incoming, &outgoing, mark, len)));
        })?;
        Ok(Self {
            chunks: vec![chunks],
            hashed,
            end: End(end),
        })
    }
}

fn hash(
    mut hashes: Hashes,
    mut incoming: mpsc::Receiver<Chunk>,
    outgoing: &mpsc::Sender<Hashed>,
    mark: u64,
    len: u64,
) -> Hashes {
    while let Some(chunk) = incoming.blocking_recv() {
        hashes.take(&chunk);
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slices_make_no_difference(
            len in 1usize..4 * SLICE,
            cuts in prop::collection::vec((0usize..SLICE, 1usize..2 * SLICE), 0..8),
        ) {
            let mut buf = Buf::alone(len);
            for (at, byte) in buf.iter_mut().enumerate() {
                *byte = (at % 251) as u8;
            }
            let (mut spans, mut at) = (Vec::new(), 0);
            for (gap, span) in cuts {
                let start = at + gap;
                if start >= len {
                    break;
                }
                let span = span.min(len - start);
                spans.push(Span { at: start, len: span, guest: 4096 + start as u64 });
                at = start + span;
            }
            let chunk = Chunk { offset: 0, buf, spans };
            let (mut object, mut content) = (ObjectHash::default(), ContentDigest::new(1 << 30));
            let mut hashes = Hashes { object: Some(object.clone()), content: content.clone() };
            object.update(&chunk.buf);
            for span in &chunk.spans {
                content.data(span.guest, chunk.bytes(span));
            }
            hashes.take(&chunk);
            prop_assert_eq!(hashes.object.unwrap().finish(), object.finish());
            prop_assert_eq!(hashes.content.finish(), content.finish());
        }
    }
}
