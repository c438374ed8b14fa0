//! Reading compressed clusters: those that lie in a row are read at once and unpacked in one go, off the async threads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use vmferry_block::Buf;
use vmferry_fault::Fault;

use crate::codec::Codec;
use crate::layer::Layer;
use crate::place::{Packed, Spot};
use crate::{Error, Kind, Source};

/// The most compressed bytes that are read at once. A single cluster may have more.
const BATCH: u64 = 1 << 20;
/// Clusters with no more than this between them are read at once.
const GAP: u64 = 16 << 10;
/// How much unpacked content is kept of clusters that were not read to their end.
const KEPT: usize = 4 << 20;

/// Clusters that follow each other on the disk and in the file.
pub(crate) struct Batch {
    clusters: Vec<Packed>,
    /// Where the compressed bytes of the last one end.
    end: u64,
}

impl Batch {
    pub(crate) fn new(first: Packed) -> Self {
        Self {
            clusters: vec![first],
            end: first.spot.offset.saturating_add(first.len),
        }
    }

    /// The only cluster, if it is the only one.
    pub(crate) fn single(&self) -> Option<Packed> {
        match self.clusters.as_slice() {
            [packed] => Some(*packed),
            _ => None,
        }
    }

    /// Takes in the cluster that comes next on the disk, if it is near enough in the file.
    pub(crate) fn add(&mut self, next: Packed) -> bool {
        let (Some(first), Some(last)) = (self.clusters.first(), self.clusters.last()) else {
            return false;
        };
        let end = next.spot.offset.saturating_add(next.len).max(self.end);
        let near = next.spot.file == first.spot.file
            && next.spot.offset >= last.spot.offset
            && next.spot.offset <= self.end.saturating_add(GAP)
            && end - first.spot.offset <= BATCH;
        if near {
            self.end = end;
            self.clusters.push(next);
        }
        near
    }

    /// Fills `buf` with the disk's content from `at`, which lies in the first cluster, to its end, which lies in the last one. Also the content of
    /// clusters that were not read to their end.
    pub(crate) async fn read(self, layer: &Layer, at: u64, buf: Buf) -> Result<(Buf, Vec<(Packed, Arc<[u8]>)>), Error> {
        let first = self.clusters.first().map_or_else(Spot::default, |packed| packed.spot);
        let (Some(source), Some(codec)) = (layer.file(first.file), layer.codec(first.file)) else {
            return Err(bug(layer.name()).detail("a compressed cluster in an image that has none"));
        };
        let end = self.end.min(source.file.size());
        let bytes = source.read(first.offset, end.saturating_sub(first.offset)).await?;
        let work = tokio::task::spawn_blocking(move || self.unpack(codec, &bytes, at, buf));
        match work.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err((packed, error))) => Err(damaged(source, codec, packed, &error)),
            Err(error) => Err(bug(&source.name).source(error)),
        }
    }

    fn unpack(self, codec: Codec, bytes: &[u8], at: u64, mut buf: Buf) -> Unpacked {
        let start = self.clusters.first().map_or(0, |first| first.spot.offset);
        let end = at + buf.len() as u64;
        let mut kept = Vec::new();
        for packed in self.clusters {
            let from = packed.spot.offset - start;
            let to = (from + packed.len).min(bytes.len() as u64);
            let bytes = bytes.get(from as usize..to as usize).unwrap_or_default();
            let (part_start, part_end) = (packed.guest.max(at), packed.guest_end().min(end));
            let out = buf.get_mut((part_start - at) as usize..(part_end - at) as usize);
            let out = out.unwrap_or_default();
            if out.len() as u64 == packed.size {
                codec.unpack(packed, bytes, out).map_err(|error| (packed, error))?;
                continue;
            }
            let mut cluster = vec![0; packed.size as usize];
            codec
                .unpack(packed, bytes, &mut cluster)
                .map_err(|error| (packed, error))?;
            let part = cluster.get((part_start - packed.guest) as usize..(part_end - packed.guest) as usize);
            out.copy_from_slice(part.unwrap_or_default());
            if part_end < packed.guest_end() {
                kept.push((packed, Arc::from(cluster)));
            }
        }
        Ok((buf, kept))
    }
}

type Unpacked = Result<(Buf, Vec<(Packed, Arc<[u8]>)>), (Packed, std::io::Error)>;

fn bug(name: &str) -> Error {
    Fault::new(Kind::Bug, "unpack a cluster of", name.to_owned())
}

fn damaged(source: &Source, codec: Codec, packed: Packed, error: &std::io::Error) -> Error {
    Fault::new(Kind::Corrupt, "read", format!("image {}", source.name))
        .detail(format!(
            "the {} cluster at {} of the file, {} of the disk, does not unpack: {error}",
            codec.name(),
            packed.spot.offset,
            packed.guest
        ))
        .remedy("check it: vmferry image check")
}

/// The clusters that were unpacked last and not read to their end.
#[derive(Default)]
pub(crate) struct Kept(Mutex<VecDeque<KeptCluster>>);

/// Which image of the chain, where in it, and the content.
type KeptCluster = (usize, Packed, Arc<[u8]>);

impl Kept {
    pub(crate) fn get(&self, layer: usize, packed: Packed) -> Option<Arc<[u8]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(of, what, _)| *of == layer && *what == packed);
        found.map(|(_, _, cluster)| Arc::clone(cluster))
    }

    pub(crate) fn put(&self, layer: usize, clusters: Vec<(Packed, Arc<[u8]>)>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(clusters.into_iter().map(|(packed, cluster)| (layer, packed, cluster)));
        while kept.len() > 1 && kept.iter().map(|(_, _, cluster)| cluster.len()).sum::<usize>() > KEPT {
            kept.pop_front();
        }
    }
}
