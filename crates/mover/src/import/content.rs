//! What a staged image says of where its content is.

use std::sync::Arc;

use vmferry_block::AllocationMap;
use vmferry_image::{DataRun, Image, ImageFormat, Limits, NoBacking, Source};
use vmferry_staging::{ObjectMeta, StagingStore};

use super::staged::{self, StagedFile};
use super::{ImportSpec, corrupt};
use crate::chunk::Span;
use crate::{Error, Kind};

/// How the content lies in the object.
pub(super) enum Content {
    /// As it is, in the order of the disk.
    Runs(Vec<DataRun>),
    /// Packed, in a VMDK that is read front to back. The image finds a place in it again.
    Packed(Box<Image>),
}

impl Content {
    /// Reads the tables of the staged image. Gives where on the disk there is content, too.
    pub(super) async fn open(
        store: &Arc<dyn StagingStore>,
        spec: &ImportSpec,
        meta: &ObjectMeta,
        object: &str,
    ) -> Result<(Self, AllocationMap), Error> {
        let file = Arc::new(StagedFile::new(Arc::clone(store), spec.object.clone(), meta.clone()));
        let wrong = |error: vmferry_image::Error| match error.kind() {
            vmferry_image::Kind::Io | vmferry_image::Kind::Bug => {
                let kind = staged::store_kind(&error).map_or(Kind::Image(error.kind()), Kind::Staging);
                Error::new(kind, "read", object).source(error)
            }
            // We wrote it, and nothing of this can be in what we write.
            _ => corrupt(object).source(error),
        };
        let source = Source::new(object, spec.staged_format, file);
        let image = Image::open(source, &NoBacking, Limits::default())
            .await
            .map_err(wrong)?;
        if image.capacity() != spec.capacity && image.capacity() != spec.capacity.next_multiple_of(512) {
            let detail = format!(
                "it is of a disk of {} bytes, and {} were exported",
                image.capacity(),
                spec.capacity
            );
            return Err(corrupt(object).detail(detail));
        }
        if spec.staged_format == ImageFormat::Vmdk {
            let map = image.map().await.map_err(wrong)?;
            return Ok((Self::Packed(Box::new(image)), cut_at(&map, spec.capacity)));
        }
        let runs = image.data_runs().await.map_err(wrong)?;
        let map = map_of(&runs, spec.capacity).ok_or_else(|| corrupt(object).detail("its data is out of order"))?;
        Ok((Self::Runs(runs), map))
    }
}

/// What of the object between these bytes is content of a disk of `capacity` bytes.
pub(super) fn spans(runs: &[DataRun], start: u64, end: u64, capacity: u64) -> Vec<Span> {
    let first = runs.partition_point(|run| run.file_offset + run.len <= start);
    let within = runs[first..].iter().take_while(|run| run.file_offset < end);
    within
        .filter_map(|run| {
            let from = run.file_offset.max(start);
            let guest = run.guest + (from - run.file_offset);
            let len = ((run.file_offset + run.len).min(end) - from).min(capacity.saturating_sub(guest));
            let (at, len) = ((from - start) as usize, len as usize);
            (len > 0).then_some(Span { at, len, guest })
        })
        .collect()
}

/// The allocation map of runs in guest order, cut at the capacity; `None` where they are not in order, in the file or on
/// the disk.
fn map_of(runs: &[DataRun], capacity: u64) -> Option<AllocationMap> {
    let mut map = AllocationMap::builder(capacity);
    let mut file_end = 0;
    for run in runs {
        if run.file_offset < file_end {
            return None;
        }
        file_end = run.file_offset.checked_add(run.len)?;
        let len = run.len.min(capacity.saturating_sub(run.guest));
        map.data(run.guest.min(capacity), len).ok()?;
    }
    Some(map.build())
}

/// The map of a disk whose last sector is not whole.
fn cut_at(map: &AllocationMap, capacity: u64) -> AllocationMap {
    let mut cut = AllocationMap::builder(capacity);
    for extent in map.extents() {
        let len = extent.len.min(capacity.saturating_sub(extent.start));
        // They were in order, and end within the capacity now.
        if cut.data(extent.start.min(capacity), len).is_err() {
            break;
        }
    }
    cut.build()
}
