//! A staged object as bytes to read at any offset.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use vmferry_block::{Buf, ReadAt};
use vmferry_staging::{ObjectKey, ObjectMeta, StagingStore};

/// What kind of failure of the store lies below that of an image.
pub(super) fn store_kind(error: &vmferry_image::Error) -> Option<vmferry_staging::Kind> {
    let below = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    below
        .get_ref()?
        .downcast_ref::<vmferry_staging::Error>()
        .map(vmferry_staging::Error::kind)
}

/// One version of a staged object.
pub(super) struct StagedFile {
    store: Arc<dyn StagingStore>,
    key: ObjectKey,
    meta: ObjectMeta,
}

impl StagedFile {
    pub(super) fn new(store: Arc<dyn StagingStore>, key: ObjectKey, meta: ObjectMeta) -> Self {
        Self { store, key, meta }
    }
}

#[async_trait]
impl ReadAt for StagedFile {
    fn size(&self) -> u64 {
        self.meta.len
    }

    async fn read_at(&self, offset: u64, buf: Buf) -> io::Result<Buf> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.meta.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read = self.store.read_one(&self.key, &self.meta.version, offset, buf).await;
        read.map_err(io::Error::other)
    }
}
