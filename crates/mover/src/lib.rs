//! The way of a byte: from a disk into staging, and from staging into a volume.
//!
//! ```text
//! export_disk:   source ── read ahead ──▶ hash ──▶ parts ──▶ staging
//! export_stream: stream ── hash, unpack ──▶ parts ──▶ staging
//! Import:       staging ── read ahead ──▶ hash ──▶ target layout, or as it is ──▶ sink
//! verify_volume: volume ── read ahead ──▶ hash
//! ```
//!
//! One pass each, no temporary file. The layout of the staged object is known before its first byte is read, so every chunk
//! of it can be made on its own; hashing is the only thing that goes strictly in order, on threads of its own.
//!
//! Architecture Invariant: memory is bounded whatever the size of the disk: every byte is in a buffer out of one pool, and a
//! buffer is taken before its place in the order is claimed, so the one that is next in the order always has one.
//!
//! Architecture Invariant: no phases and no Kubernetes here. A transfer goes on by itself after what passes; what it leaves
//! for the next attempt is the journal beside the object.

mod chunk;
mod error;
mod export;
mod hasher;
mod import;
mod lanes;
mod patience;
mod progress;
mod unpack;
mod verify;

pub use error::{Error, Kind};
pub use export::{ExportSpec, Open, export_disk, export_stream};
pub use import::{Import, ImportSpec, TargetForm};
pub use progress::{Progress, Snapshot};
pub use verify::verify_volume;
pub use vmferry_block::Digest;

/// A disk that arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Length of the staged object in bytes.
    pub len: u64,
    /// SHA-256 of the staged object.
    pub checksum: Digest,
    /// Content digest of the disk.
    pub content_digest: Digest,
    /// Bytes of the object that were moved now, those of earlier attempts not included.
    pub moved: u64,
}

#[cfg(test)]
mod tests;
