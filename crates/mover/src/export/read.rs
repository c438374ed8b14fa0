//! Making the chunks of the staged object out of the source's bytes.

use vmferry_block::Buf;
use vmferry_image::{Layout, Piece};
use vmferry_provider::DiskSource;

use crate::chunk::{Chunk, Span};
use crate::progress::Progress;
use crate::{Error, error};

/// Everything that a chunk is made from.
pub(super) struct Reader<'a> {
    pub(super) source: &'a dyn DiskSource,
    /// Where the bytes of the object come from; `None` where they are packed.
    pub(super) layout: Option<&'a Layout>,
    pub(super) progress: &'a Progress,
    pub(super) object: &'a str,
}

impl Reader<'_> {
    /// Fills `buf` with the object's bytes from `offset`.
    pub(super) async fn chunk(&self, offset: u64, buf: Buf) -> Result<Chunk, Error> {
        let end = offset + buf.len() as u64;
        let Some(layout) = self.layout else {
            return self.plain(offset, buf).await;
        };
        let mut pieces = layout.pieces(offset..end).peekable();
        match pieces.peek() {
            // The usual case: the chunk is one run of the disk, and is read right into its place.
            Some(Piece::Data { guest, len, .. }) if *len == buf.len() as u64 => {
                let (guest, len) = (*guest, buf.len());
                let buf = self.read(guest, buf).await?;
                let spans = vec![Span { at: 0, len, guest }];
                Ok(Chunk { offset, buf, spans })
            }
            _ => self.mixed(offset, buf, pieces).await,
        }
    }

    /// Fills `buf` with the disk's bytes from `guest`.
    pub(super) async fn plain(&self, guest: u64, buf: Buf) -> Result<Chunk, Error> {
        let buf = self.read(guest, buf).await?;
        let spans = Vec::new();
        Ok(Chunk {
            offset: guest,
            buf,
            spans,
        })
    }

    async fn mixed(&self, offset: u64, mut buf: Buf, pieces: impl Iterator<Item = Piece>) -> Result<Chunk, Error> {
        let mut spans = Vec::new();
        for piece in pieces {
            let at = (piece.offset() - offset) as usize;
            let place = at..at + piece.len() as usize;
            match piece {
                Piece::Meta { bytes, .. } => buf[place].copy_from_slice(&bytes),
                Piece::Zero { .. } => buf[place].fill(0),
                Piece::Data { guest, .. } => {
                    let len = place.len();
                    let whole = buf.narrow(place);
                    buf = self.read(guest, buf).await?;
                    buf.restore(whole);
                    spans.push(Span { at, len, guest });
                }
            }
        }
        Ok(Chunk { offset, buf, spans })
    }

    /// Fills `buf` from the disk.
    pub(super) async fn read(&self, guest: u64, buf: Buf) -> Result<Buf, Error> {
        let read = self.source.read(guest, buf).await;
        let buf = read.map_err(|error| error::source(error, self.object))?;
        self.progress.alive();
        Ok(buf)
    }
}
