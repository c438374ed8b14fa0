//! Whether compressed clusters and grains unpack.

use futures::future::join_all;
use vmferry_block::Buf;

use super::Report;
use crate::layer::Layer;
use crate::packed::Batch;
use crate::place::{Packed, Place};
use crate::{Error, Kind};

/// How much of the disk is unpacked together, at most; a single cluster has no more either.
const CONTENT: u64 = 2 << 20;

/// Unpacks everything that is compressed, on all processors.
pub(super) async fn check(layer: &Layer, window: u64, report: &mut Report) -> Result<(), Error> {
    let tasks = std::thread::available_parallelism().map_or(2, usize::from).min(16);
    let (mut at, mut loaded) = (0, 0);
    let mut batches: Vec<Vec<Packed>> = Vec::new();
    while at < layer.size() {
        if at >= loaded {
            loaded = layer.load_tables(at, window).await?.clamp(at + 1, layer.size());
        }
        let found = layer.locate(at, loaded - at).await?;
        at += found.len;
        let Place::Packed(packed) = found.place else {
            continue;
        };
        let room = CONTENT / packed.size;
        let follows = |batch: &Vec<Packed>| {
            let near = batch.last().is_some_and(|last| last.guest_end() == packed.guest);
            near && (batch.len() as u64) < room
        };
        match batches.last_mut().filter(|batch| follows(batch)) {
            Some(batch) => batch.push(packed),
            None => batches.push(vec![packed]),
        }
        if batches.len() > tasks {
            let last = batches.split_off(tasks);
            unpack(layer, std::mem::replace(&mut batches, last), report).await?;
        }
    }
    unpack(layer, batches, report).await
}

async fn unpack(layer: &Layer, batches: Vec<Vec<Packed>>, report: &mut Report) -> Result<(), Error> {
    let works = batches.into_iter().map(|clusters| async move {
        let mut damaged = Vec::new();
        let mut rest = clusters.as_slice();
        while let Some((first, more)) = rest.split_first() {
            let mut batch = Batch::new(*first);
            let near = more.iter().take_while(|next| batch.add(**next)).count();
            let (these, others) = rest.split_at(1 + near);
            rest = others;
            match read(layer, batch, these).await {
                Err(error) if error.kind() == Kind::Corrupt => damaged.extend(one_by_one(layer, these).await?),
                other => other?,
            }
        }
        Ok::<_, Error>(damaged)
    });
    for damaged in join_all(works).await {
        for error in damaged? {
            report.error(|| error.to_string());
        }
    }
    Ok(())
}

/// Which of these do not unpack.
async fn one_by_one(layer: &Layer, clusters: &[Packed]) -> Result<Vec<Error>, Error> {
    let mut damaged = Vec::new();
    for packed in clusters {
        match read(layer, Batch::new(*packed), &[*packed]).await {
            Err(error) if error.kind() == Kind::Corrupt => damaged.push(error),
            other => other?,
        }
    }
    Ok(damaged)
}

async fn read(layer: &Layer, batch: Batch, clusters: &[Packed]) -> Result<(), Error> {
    let (Some(first), Some(last)) = (clusters.first(), clusters.last()) else {
        return Ok(());
    };
    let contiguous = last.guest_end() - first.guest;
    batch
        .read(layer, first.guest, Buf::alone(contiguous as usize))
        .await
        .map(drop)
}
