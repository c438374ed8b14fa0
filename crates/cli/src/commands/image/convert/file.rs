//! Raw and qcow2 files: every byte has its place before the first one is written, so writes go in any order.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use vmferry_block::{AllocationMap, Buf};
use vmferry_image::{Image, ImageFormat, Layout, Piece};

use super::digest::{Digests, Feed, Hasher, Span};
use super::progress::Progress;
use super::read::{self, BLOCK, CHUNK, WRITES};
use super::target::Target;
use super::{Copied, Job};
use crate::exit::Failure;

/// What comes next in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Bytes to be made: offset and length.
    Bytes(u64, u64),
    /// Zeros, which are a hole.
    Hole(u64),
}

/// A step that is made.
enum Made {
    Bytes {
        offset: u64,
        buf: Arc<Buf>,
        spans: Vec<Span>,
        filled: Vec<Range<usize>>,
    },
    Hole(u64),
}

/// Copies the disk into the file.
pub async fn copy(job: &Job, target: &Target, format: ImageFormat) -> Result<Copied, Failure> {
    // Clusters of the copy, and no small holes: a hole costs an entry of the file system.
    let map = job.map.align(BLOCK as u64);
    let layout = Layout::new(format, &map, job.image.capacity()).map_err(Failure::failed)?;
    let layout = Arc::new(layout);
    let sized = target.file.set_len(layout.len()).await;
    sized.map_err(|error| target.failure(&error))?;
    let digests = write(job, target, &layout, &map).await?;
    Ok(Copied {
        len: layout.len(),
        digests,
    })
}

async fn write(job: &Job, target: &Target, layout: &Arc<Layout>, map: &AllocationMap) -> Result<Digests, Failure> {
    let hasher = Hasher::start(job.image.capacity(), job.sha256)?;
    let progress = Progress::new("copying", map.data_bytes());
    let (image, shape) = (Arc::clone(&job.image), Arc::clone(layout));
    let made = read::ordered(steps(layout), read::pool(), move |step, buf| {
        make(Arc::clone(&image), Arc::clone(&shape), step, buf)
    });
    let mut made = std::pin::pin!(made);
    let mut writes = FuturesUnordered::new();
    let mut reading = true;
    while reading || !writes.is_empty() {
        tokio::select! {
            Some(written) = writes.next(), if !writes.is_empty() => {
                let written: std::io::Result<()> = written;
                written.map_err(|error| target.failure(&error))?;
            }
            step = made.try_next(), if reading && writes.len() < WRITES => match step? {
                None => reading = false,
                Some(Made::Hole(len)) => hasher.feed(Feed::Zeros(len)).await?,
                Some(Made::Bytes { offset, buf, spans, filled }) => {
                    for range in filled {
                        let at = offset + range.start as u64;
                        writes.push(target.file.write_range_at(at, Arc::clone(&buf), range));
                    }
                    progress.add(spans.iter().map(|span| span.len as u64).sum());
                    hasher.feed(Feed::File { buf, spans }).await?;
                }
            },
        }
    }
    hasher.finish().await
}

/// The file in steps: long zeros as they are, everything else in chunks at multiples of [`CHUNK`].
fn steps(layout: &Arc<Layout>) -> impl Iterator<Item = Step> + Send + use<> {
    let layout = Arc::clone(layout);
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = layout.pieces(at..layout.len()).next()?;
        let step = match first {
            Piece::Zero { len, .. } if len >= CHUNK => Step::Hole(len),
            _ => Step::Bytes(at, ((at / CHUNK + 1) * CHUNK).min(layout.len()) - at),
        };
        at += match step {
            Step::Bytes(_, len) | Step::Hole(len) => len,
        };
        Some(step)
    })
}

async fn make(image: Arc<Image>, layout: Arc<Layout>, step: Step, mut buf: Buf) -> Result<Made, Failure> {
    let (offset, len) = match step {
        Step::Hole(len) => return Ok(Made::Hole(len)),
        Step::Bytes(offset, len) => (offset, len),
    };
    buf.set_len(len as usize);
    let mut spans = Vec::new();
    for piece in layout.pieces(offset..offset + len) {
        let at = (piece.offset() - offset) as usize;
        let place = at..at + piece.len() as usize;
        match piece {
            Piece::Meta { bytes, .. } => buf[place].copy_from_slice(&bytes),
            Piece::Zero { .. } => buf[place].fill(0),
            Piece::Data { guest, len, .. } => {
                let whole = buf.narrow(place);
                buf = read::read(&image, guest, buf).await?;
                buf.restore(whole);
                let len = len as usize;
                spans.push(Span { at, len, guest });
            }
        }
    }
    let filled = read::filled(&buf);
    Ok(Made::Bytes {
        offset,
        buf: Arc::new(buf),
        spans,
        filled,
    })
}
