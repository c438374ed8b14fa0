//! Writing a volume: straight into its file where that is a file of this machine, as a stream through libvirt otherwise.

mod local;
mod stream;

use std::sync::Arc;

use vmferry_block::Buf;

use super::name::Place;
use super::volume;
use crate::libvirt::Libvirt;
use crate::{DiskSink, Error, Kind, Owner, VolumeId};

/// What to do about a pool that is full.
const MORE_ROOM: &str = "free some space in the pool, or name another one in spec.targetStorageHint";

/// Opens a volume of `owner` that will be `len` bytes long.
pub(super) async fn open(
    libvirt: &Libvirt,
    id: &VolumeId,
    owner: &Owner,
    len: u64,
) -> Result<Arc<dyn DiskSink>, Error> {
    let place = Place::owned(id, owner)?;
    let described = volume::describe(libvirt, &place).await?;
    match volume::local_file(libvirt, &described, true).await? {
        Some(file) => Ok(Arc::new(local::LocalSink::open(libvirt, place, file, 0, len).await?)),
        None => stream(libvirt, place, described.file_bytes, len).await,
    }
}

/// Opens a volume of `owner` behind the first `kept` bytes that an earlier sink wrote. An upload through libvirt cannot begin in
/// the middle without losing the holes, so only a file of this machine can be gone on with; it has had its whole length from
/// the start.
pub(super) async fn reopen(
    libvirt: &Libvirt,
    id: &VolumeId,
    owner: &Owner,
    len: u64,
    kept: u64,
) -> Result<Option<Arc<dyn DiskSink>>, Error> {
    let place = Place::owned(id, owner)?;
    let described = volume::describe(libvirt, &place).await?;
    if described.file_bytes != len || kept > len {
        return Ok(None);
    }
    match volume::local_file(libvirt, &described, true).await? {
        Some(file) => Ok(Some(Arc::new(
            local::LocalSink::open(libvirt, place, file, kept, len).await?,
        ))),
        None => Ok(None),
    }
}

/// The way through libvirt, for a volume whose file is `held` bytes long now.
pub(super) async fn stream(libvirt: &Libvirt, place: Place, held: u64, len: u64) -> Result<Arc<dyn DiskSink>, Error> {
    if held > 0 {
        volume::remake(libvirt, &place).await?;
    }
    Ok(Arc::new(stream::StreamSink::open(libvirt, place, len).await?))
}

/// Refuses bytes past the length that was declared.
fn check_range(place: &Place, offset: u64, buf: &Buf, len: u64) -> Result<u64, Error> {
    match offset.checked_add(buf.len() as u64) {
        Some(end) if end <= len => Ok(end),
        _ => Err(Error::new(Kind::Bug, "write", place.object()).detail(format!(
            "{} bytes at {offset} end past the declared length of {len}",
            buf.len()
        ))),
    }
}

/// Refuses an end past the length that was declared.
fn check_end(place: &Place, end: u64, len: u64) -> Result<(), Error> {
    if end <= len {
        return Ok(());
    }
    Err(Error::new(Kind::Bug, "finish", place.object())
        .detail(format!("{end} bytes are more than the declared length of {len}")))
}
