//! Making a streamOptimized VMDK: packed on several threads, put together in order on one.
//!
//! Its length is known only at its end. A part's end falls into the middle of a run mostly, so what is written down there is
//! the state before that run: whoever goes on packs the run again, which gives the same bytes, and leaves out those that are
//! in the part already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};
use vmferry_block::{Buf, ContentDigest, ContentState, ObjectHash, Pool};
use vmferry_image::vmdk::stream::{PackedRun, Packer, Writer};

use crate::chunk::{CHUNK, Chunk};
use crate::error::{Error, Kind};
use crate::hasher::{Hashed, Hashes, States, Vmdk, died, spawn};
use crate::lanes::{Gather, spread};

/// Chunks that may wait for the upload.
const QUEUE: usize = 2;
/// What a run can bring with it in grain tables, generously.
const TABLES: u64 = 16 << 10;

/// The threads that make the file.
pub(super) struct Packing {
    /// Take chunks of the disk by turns. Dropping them ends the threads.
    pub(super) chunks: Vec<mpsc::Sender<Chunk>>,
    /// Gives the bytes of the file in order.
    pub(super) hashed: mpsc::Receiver<Hashed>,
    pub(super) end: End,
}

/// What the threads leave.
pub(super) struct End {
    whole: Arc<AtomicBool>,
    hashes: oneshot::Receiver<Result<Hashes, Error>>,
}

impl Packing {
    /// Starts the threads. The object's hash may be ahead of `writer`: what it has already is made again and left out.
    pub(super) fn start(writer: Writer, hashes: Hashes, part_size: u64, pool: Pool) -> Result<Self, Error> {
        let make = || {
            let mut packer = Packer::new();
            move |chunk: Chunk| {
                let run = packer.pack(chunk.offset, &chunk.buf);
                (chunk, run)
            }
        };
        let (chunks, packed) = spread("pack", make)?;
        let (send, hashed) = mpsc::channel(QUEUE);
        let (leave, hashes_end) = oneshot::channel();
        let whole = Arc::new(AtomicBool::new(false));
        let file = File {
            before: before(&writer, &hashes.content),
            at: hashes.read(),
            object: hashes.object.unwrap_or_default(),
            content: hashes.content,
            writer,
            part_size,
            open: None,
            pool,
            send,
            whole: Arc::clone(&whole),
        };
        // Nobody may be there any more to hear what it leaves.
        spawn("write-vmdk", move || drop(leave.send(file.run(packed))))?;
        let end = End {
            whole,
            hashes: hashes_end,
        };
        Ok(Self { chunks, hashed, end })
    }
}

impl End {
    /// Says whether all chunks were given, before the ways for them are dropped: what is there when they end is no whole
    /// file otherwise.
    pub(super) fn all_given(&self, all: bool) {
        self.whole.store(all, Ordering::Release);
    }

    /// The hashes of the whole file.
    pub(super) async fn hashes(self) -> Result<Hashes, Error> {
        self.hashes.await.map_err(|_| died())?
    }
}

/// The file as it grows.
struct File {
    writer: Writer,
    content: ContentDigest,
    /// Of the object up to the chunk that is being filled.
    object: ObjectHash,
    /// Up to which byte of the file chunks are filled.
    at: u64,
    part_size: u64,
    /// What is to be written down at the end of a part.
    before: (Vmdk, ContentState),
    /// The chunk that is being filled.
    open: Option<Buf>,
    pool: Pool,
    send: mpsc::Sender<Hashed>,
    whole: Arc<AtomicBool>,
}

fn before(writer: &Writer, content: &ContentDigest) -> (Vmdk, ContentState) {
    let (state, guest) = (Box::new(writer.save()), writer.next_guest());
    (Vmdk::Writer { state, guest }, content.save())
}

impl File {
    fn run(mut self, mut packed: Gather<(Chunk, PackedRun)>) -> Result<Hashes, Error> {
        let wrong =
            |error: vmferry_image::Error| Error::new(Kind::Image(error.kind()), "stage", "the disk").source(error);
        let mut out = Vec::new();
        self.writer.start(&mut out);
        self.emit(&mut out)?;
        while let Some((chunk, run)) = packed.next() {
            let end = self.writer.len() + run.bytes().len() as u64 + TABLES;
            if end / self.part_size > self.writer.len() / self.part_size {
                self.before = before(&self.writer, &self.content);
            }
            self.content.data(chunk.offset, &chunk.buf);
            drop(chunk);
            self.writer.append(&run, &mut out).map_err(wrong)?;
            self.emit(&mut out)?;
        }
        if !self.whole.load(Ordering::Acquire) {
            return Err(died());
        }
        self.before = before(&self.writer, &self.content);
        self.writer.finish(&mut out).map_err(wrong)?;
        self.emit(&mut out)?;
        if let Some(last) = self.open.take() {
            self.pass_on(last, true)?;
        }
        Ok(Hashes {
            object: Some(self.object),
            content: self.content,
        })
    }

    /// Fills chunks with what the writer gave, and passes on those that are full.
    fn emit(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.writer.len() - out.len() as u64;
        let skip = (self.at - start).min(out.len() as u64) as usize;
        let mut bytes = &out[skip..];
        while !bytes.is_empty() {
            let mut buf = match self.open.take() {
                Some(buf) => buf,
                None => block_on(self.pool.take(0)),
            };
            let filled = buf.len();
            let in_part = self.part_size - self.at % self.part_size;
            let more = bytes.len().min(CHUNK as usize - filled).min(in_part as usize);
            buf.set_len(filled + more);
            buf[filled..].copy_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            self.at += more as u64;
            let at_part_end = self.at.is_multiple_of(self.part_size);
            if at_part_end || buf.len() == CHUNK as usize {
                self.pass_on(buf, at_part_end)?;
            } else {
                self.open = Some(buf);
            }
        }
        out.clear();
        Ok(())
    }

    fn pass_on(&mut self, buf: Buf, at_part_end: bool) -> Result<(), Error> {
        self.object.update(&buf);
        let states = at_part_end.then(|| States {
            object: self.object.save(),
            content: self.before.1.clone(),
            vmdk: Some(self.before.0.clone()),
        });
        let (offset, done) = (self.at - buf.len() as u64, buf.len() as u64);
        let spans = Vec::new();
        let chunk = Chunk { offset, buf, spans };
        let sent = self.send.blocking_send(Hashed { chunk, done, states });
        // Whoever closed it knows why.
        sent.map_err(|_| died())
    }
}
