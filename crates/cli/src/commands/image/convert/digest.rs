//! Hashing what passes, in order, on a thread of its own.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use vmferry_block::{Buf, ContentDigest, Digest, ObjectHash};

use crate::exit::Failure;

/// How much may wait for being hashed, in buffers.
pub const QUEUE: usize = 4;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What is hashed next.
pub enum Feed {
    /// Bytes of the file that is written. The spans are content of the disk: where in the buffer, how long, where on the disk.
    File { buf: Arc<Buf>, spans: Vec<Span> },
    /// Zeros of the file.
    Zeros(u64),
    /// Content of the disk alone.
    Content { guest: u64, buf: Arc<Buf> },
}

/// A part of a buffer that is content of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte in the buffer.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
    /// Where it lies on the disk.
    pub guest: u64,
}

/// What was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of the disk.
    pub content: Digest,
    /// SHA-256 of the file, where it was asked for.
    pub file: Option<Digest>,
}

/// The thread, from outside.
pub struct Hasher {
    feeds: mpsc::Sender<Feed>,
    end: oneshot::Receiver<Digests>,
}

impl Hasher {
    /// Starts the thread for a disk of `capacity` bytes, and for a file if `file` says so.
    pub fn start(capacity: u64, file: bool) -> Result<Self, Failure> {
        let (feeds, incoming) = mpsc::channel(QUEUE);
        let (leave, end) = oneshot::channel();
        let work = move || {
            // Nobody may be there any more to hear it.
            let _ = leave.send(run(incoming, capacity, file));
        };
        let thread = std::thread::Builder::new().name("hash".to_owned()).spawn(work);
        thread.map_err(|error| Failure::failed(format!("cannot start the thread that hashes: {error}")))?;
        Ok(Self { feeds, end })
    }

    /// Hashes this next. Waits where much waits already.
    pub async fn feed(&self, feed: Feed) -> Result<(), Failure> {
        self.feeds.send(feed).await.map_err(|_| died())
    }

    /// Waits until all is hashed.
    pub async fn finish(self) -> Result<Digests, Failure> {
        drop(self.feeds);
        self.end.await.map_err(|_| died())
    }
}

fn died() -> Failure {
    Failure::failed("the thread that hashes ended early: this is a fault of vmferry, please report it")
}

fn run(mut feeds: mpsc::Receiver<Feed>, capacity: u64, file: bool) -> Digests {
    let mut content = ContentDigest::new(capacity);
    let mut file = file.then(ObjectHash::default);
    while let Some(feed) = feeds.blocking_recv() {
        match feed {
            Feed::File { buf, spans } => {
                if let Some(file) = &mut file {
                    file.update(&buf);
                }
                for span in spans {
                    content.data(span.guest, &buf[span.at..span.at + span.len]);
                }
            }
            Feed::Zeros(mut len) => {
                while let Some(file) = file.as_mut().filter(|_| len > 0) {
                    let now = len.min(ZEROS.len() as u64);
                    file.update(&ZEROS[..now as usize]);
                    len -= now;
                }
            }
            Feed::Content { guest, buf } => content.data(guest, &buf),
        }
    }
    Digests {
        content: content.finish(),
        file: file.map(ObjectHash::finish),
    }
}
