//! NBD exports: data is written, and zeros are where the export is not known to be zeros.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use vmferry_block::{AllocationMap, Buf};
use vmferry_nbd::{Client, Error, Zeroing};

use super::Job;
use super::digest::{Digests, Feed, Hasher};
use super::progress::Progress;
use super::read::{self, BLOCK, CHUNK, Chunk, WRITES};
use crate::commands::image::nbd;
use crate::commands::image::place::Place;
use crate::exit::Failure;

/// An export that is written.
pub struct Target<'a> {
    client: Client,
    place: &'a Place,
    /// What it may hold other than zeros.
    old: AllocationMap,
}

impl<'a> Target<'a> {
    /// Opens an export for a disk of `capacity` bytes.
    pub async fn open(place: &'a Place, capacity: u64) -> Result<Self, Failure> {
        let Place::Nbd(export) = place else {
            return Err(Failure::bad_input(format!("{place} is no NBD export")));
        };
        let client = nbd::connect(export).await?;
        let refuse = |why: String| Err(Failure::failed(format!("cannot write {place}: {why}")));
        if client.is_read_only() {
            return refuse("the export is read-only; serve it for writing".into());
        }
        if client.size() < capacity {
            let size = client.size();
            return refuse(format!(
                "the export has {size} bytes and the disk {capacity}; make the export at least as large"
            ));
        }
        let old = client.allocation().await.map_err(|error| failure(place, &error))?;
        Ok(Self { client, place, old })
    }

    /// Copies the disk into the export. It is durable then.
    pub async fn copy(&self, job: &Job) -> Result<Digests, Failure> {
        let capacity = job.image.capacity();
        // Whole blocks of the server's, and none so small that it costs more to leave it out.
        let unit = u64::from(self.client.blocks().min).max(BLOCK as u64);
        let map = job.map.align(unit);
        let hasher = Hasher::start(capacity, false)?;
        let progress = Progress::new("copying", map.data_bytes());
        let mut gaps = gaps(&map);
        let chunks = read::chunks(Arc::clone(&job.image), &map);
        let mut chunks = std::pin::pin!(chunks);
        let mut writes: FuturesUnordered<BoxFuture<'_, Result<(), Error>>> = FuturesUnordered::new();
        let mut reading = true;
        while reading || !writes.is_empty() {
            if writes.len() < WRITES
                && let Some((start, end)) = gaps.next()
            {
                writes.push(self.zero(start, end).boxed());
                continue;
            }
            tokio::select! {
                Some(written) = writes.next(), if !writes.is_empty() => {
                    written.map_err(|error| failure(self.place, &error))?;
                }
                chunk = chunks.try_next(), if reading && writes.len() < WRITES => match chunk? {
                    None => reading = false,
                    Some(chunk) => {
                        let (guest, buf) = (chunk.guest, Arc::clone(&chunk.buf));
                        progress.add(buf.len() as u64);
                        writes.push(self.put(chunk).boxed());
                        hasher.feed(Feed::Content { guest, buf }).await?;
                    }
                },
            }
        }
        self.client.flush().await.map_err(|error| failure(self.place, &error))?;
        hasher.finish().await
    }

    /// Writes a chunk: its data, and zeros between them.
    async fn put(&self, chunk: Chunk) -> Result<(), Error> {
        let mut at = chunk.guest;
        let end = chunk.guest + chunk.buf.len() as u64;
        for range in chunk.filled {
            let start = chunk.guest + range.start as u64;
            let until = chunk.guest + range.end as u64;
            self.zero(at, start).await?;
            at = until;
            self.write(start, &chunk.buf, range).await?;
        }
        self.zero(at, end).await
    }

    /// Writes a part of a buffer. One that ends within a block, at the end of the disk, is filled up with zeros.
    async fn write(&self, offset: u64, buf: &Arc<Buf>, range: std::ops::Range<usize>) -> Result<(), Error> {
        let block = self.client.blocks().min as usize;
        if range.len().is_multiple_of(block) {
            return self.client.write_range(offset, Arc::clone(buf), range).await;
        }
        let mut whole = Buf::alone(range.len().next_multiple_of(block));
        whole[..range.len()].copy_from_slice(&buf[range]);
        self.client.write(offset, whole).await
    }

    /// Makes `start..end` zeros where it may be anything else.
    async fn zero(&self, start: u64, end: u64) -> Result<(), Error> {
        let block = u64::from(self.client.blocks().min);
        let first = self.old.extents().partition_point(|extent| extent.end() <= start);
        for extent in self.old.extents()[first..]
            .iter()
            .take_while(|extent| extent.start < end)
        {
            let from = (extent.start.max(start) / block * block).max(start);
            let until = extent.end().min(end).next_multiple_of(block);
            match self.client.write_zeroes(from, until - from, Zeroing::default()).await {
                Err(Error::NoZeroes) => self.write_zeros(from, until).await?,
                answer => answer?,
            }
        }
        Ok(())
    }

    /// Sends zeros.
    async fn write_zeros(&self, start: u64, end: u64) -> Result<(), Error> {
        let zeros = Arc::new(Buf::alone(CHUNK.min(end - start) as usize));
        for (at, len) in read::cut(start, end) {
            let (zeros, range) = (Arc::clone(&zeros), 0..len as usize);
            self.client.write_range(at, zeros, range).await?;
        }
        Ok(())
    }
}

/// The failure of a write.
fn failure(place: &Place, error: &Error) -> Failure {
    let remedy = if error.is_no_space() {
        "; make room at its server, and begin again"
    } else {
        "; look at its server, and begin again: the export holds a part of the disk"
    };
    Failure::failed(format!("cannot write {place}: {error}{remedy}"))
}

/// What lies between the extents of a map.
fn gaps(map: &AllocationMap) -> impl Iterator<Item = (u64, u64)> {
    let starts = std::iter::once(0).chain(map.extents().iter().map(|extent| extent.end()));
    let ends = map.extents().iter().map(|extent| extent.start);
    let ends = ends.chain(std::iter::once(map.capacity()));
    starts.zip(ends).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_left() {
        let mut map = AllocationMap::builder(100);
        map.data(0, 10).unwrap();
        map.data(20, 5).unwrap();
        let found: Vec<_> = gaps(&map.build()).collect();
        assert_eq!(found, [(10, 20), (25, 100)]);
        assert_eq!(gaps(&AllocationMap::full(7)).count(), 0);
    }
}
