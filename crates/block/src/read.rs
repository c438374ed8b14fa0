//! Random access to bytes, wherever they are.

use std::io;

use async_trait::async_trait;

use crate::Buf;

/// Bytes that can be read at any offset, by several tasks at once.
#[async_trait]
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills the whole of `buf` from `offset` and gives it back. Reading past the end is `UnexpectedEof`.
    async fn read_at(&self, offset: u64, buf: Buf) -> io::Result<Buf>;
}
