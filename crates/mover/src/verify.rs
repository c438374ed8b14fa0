//! Reading a volume back.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Buf, ContentDigest, Digest, Pool, is_zero};
use vmferry_provider::DiskSource;

use crate::chunk::{CHUNK, Chunk, READ_AHEAD, Span, cut, feed, single};
use crate::error;
use crate::hasher::{Hashed, Hasher, Hashes};
use crate::progress::Progress;
use crate::{Error, Kind};

/// Chunks that are read or hashed at one time, at most.
const CHUNKS: usize = READ_AHEAD + 8;
/// How long nothing may move.
const STALL: Duration = Duration::from_mins(1);

/// Reads a volume and compares its first `capacity` bytes with a content digest; what a grown disk has beyond them must be
/// zeros. [`VolumeCorrupt`](Kind::VolumeCorrupt) where it is not so.
///
/// `progress` only serves to see whether it moves: its bytes are those of the object.
pub async fn verify_volume(
    volume: Arc<dyn DiskSource>,
    capacity: u64,
    content_digest: Digest,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let work = async {
        if volume.capacity() < capacity {
            return Err(corrupt(format!(
                "it has {} bytes, and the disk has {capacity}",
                volume.capacity()
            )));
        }
        let map = volume.map().await.map_err(|error| error::source(error, OBJECT))?;
        let found = read(&*volume, &map, capacity, progress, cancel).await?;
        volume.finish().await.map_err(|error| error::source(error, OBJECT))?;
        if found == content_digest {
            return Ok(());
        }
        Err(corrupt(format!(
            "its content digest is {found}, and that of the source's disk is {content_digest}"
        )))
    };
    progress.watch(OBJECT, STALL, work).await
}

const OBJECT: &str = "the volume of the target";

async fn read(
    volume: &dyn DiskSource,
    map: &AllocationMap,
    capacity: u64,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Digest, Error> {
    let hashes = Hashes {
        object: None,
        content: ContentDigest::new(capacity),
    };
    let Hasher { chunks, hashed, end } = Hasher::start(hashes, u64::MAX, u64::MAX)?;
    let pool = Pool::new(CHUNK as usize, CHUNKS);
    let read = |guest, bufs| {
        single(bufs, async move |buf| {
            chunk(volume, capacity, progress, guest, buf).await
        })
        .boxed()
    };
    let feed = feed(cut(map, 0, u64::MAX), pool, read, chunks, cancel, OBJECT);
    let ((), read) = tokio::join!(drain(hashed), feed);
    read?;
    Ok(end.hashes().await?.content.finish())
}

async fn chunk(
    volume: &dyn DiskSource,
    capacity: u64,
    progress: &Progress,
    guest: u64,
    buf: Buf,
) -> Result<Chunk, Error> {
    let buf = volume
        .read(guest, buf)
        .await
        .map_err(|error| error::source(error, OBJECT))?;
    progress.alive();
    let len = capacity.saturating_sub(guest).min(buf.len() as u64) as usize;
    if !is_zero(&buf[len..]) {
        return Err(corrupt(format!("it has data past the disk's end at {capacity} bytes")));
    }
    let spans = (len > 0).then_some(Span { at: 0, len, guest }).into_iter().collect();
    Ok(Chunk {
        offset: guest,
        buf,
        spans,
    })
}

/// Gives the buffers back.
async fn drain(mut hashed: mpsc::Receiver<Hashed>) {
    while hashed.recv().await.is_some() {}
}

fn corrupt(detail: String) -> Error {
    Error::new(Kind::VolumeCorrupt, "accept", OBJECT)
        .detail(detail)
        .remedy("it is imported again on the next attempt")
}
