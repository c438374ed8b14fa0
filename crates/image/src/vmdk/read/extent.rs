//! A part of a disk.

use std::sync::Arc;

use super::descriptor::{ExtentKind, ExtentLine};
use super::header::{self, Header};
use super::sparse::Sparse;
use super::{check_magic, corrupt};
use crate::layer::locate_raw;
use crate::place::{Place, Segment};
use crate::tables::Tables;
use crate::vmdk::spec::{self, SECTOR};
use crate::{Error, Source};

/// An open part of a disk.
pub(crate) struct Extent {
    /// Where it starts on the disk, in bytes.
    pub(crate) first: u64,
    len: u64,
    content: Content,
}

enum Content {
    /// Plain bytes of file `number` from `offset` on.
    Flat {
        source: Source,
        offset: u64,
        number: u32,
    },
    Sparse(Box<Sparse>),
    Zero,
}

impl Extent {
    /// A part that is a file with grain tables.
    pub(crate) fn sparse(sparse: Sparse) -> Self {
        Self {
            first: sparse.first,
            len: sparse.len,
            content: Content::Sparse(Box::new(sparse)),
        }
    }

    /// A part that is zeros.
    pub(crate) fn zero(first: u64, sectors: u64) -> Self {
        Self {
            first,
            len: sectors * SECTOR,
            content: Content::Zero,
        }
    }

    /// A part that is in file `source`, which has `number`.
    pub(crate) async fn open(
        source: Source,
        line: &ExtentLine,
        first: u64,
        number: u32,
        tables: &Arc<Tables>,
    ) -> Result<Self, Error> {
        let len = line.sectors * SECTOR;
        let ExtentKind::Flat { offset, .. } = line.kind else {
            let start = source.read(0, source.file.size().min(spec::HEADER_LEN)).await?;
            let refuse = |refusal: crate::error::Refusal| refusal.of("vmdk", &source.name);
            check_magic(&start).map_err(refuse)?;
            if header::magic(&start) != Some(spec::MAGIC) {
                return Err(refuse(corrupt("it does not start as a sparse VMDK file does")));
            }
            let header = Header::read(&source).await?;
            return Ok(Self::sparse(Sparse::new(
                source,
                header,
                (first, line.sectors),
                number,
                tables,
            )?));
        };
        let offset = offset * SECTOR;
        if offset.checked_add(len).is_none_or(|end| end > source.file.size()) {
            let detail = format!(
                "by the descriptor it has {len} bytes of the disk from {offset} on, and it ends at {}",
                source.file.size()
            );
            return Err(corrupt(detail).of("vmdk", &source.name));
        }
        let content = Content::Flat { source, offset, number };
        Ok(Self { first, len, content })
    }

    /// Where it ends on the disk.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.len
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        match &self.content {
            Content::Flat { source, .. } => Some(source),
            Content::Sparse(sparse) => Some(sparse.source()),
            Content::Zero => None,
        }
    }

    pub(crate) fn as_sparse(&self) -> Option<&Sparse> {
        match &self.content {
            Content::Sparse(sparse) => Some(sparse),
            _ => None,
        }
    }

    /// See [`Vmdk::locate`](super::Vmdk::locate). `at` and `len` lie within this part.
    pub(crate) async fn locate(&self, at: u64, len: u64) -> Result<Segment, Error> {
        match &self.content {
            Content::Flat { source, offset, number } => Ok(locate_raw(source, at - self.first + offset, len, *number)),
            Content::Sparse(sparse) => sparse.locate(at, len).await,
            Content::Zero => Ok(Segment {
                place: Place::Zero,
                len,
            }),
        }
    }
}
