//! The common currency of the byte path: buffers, extents and digests.
//!
//! This crate is the floor of the house. It knows no format, no hypervisor and no storage; it only says what a piece of
//! a disk is ([`Extent`], [`AllocationMap`]), in what it travels ([`Buf`] out of a bounded [`Pool`]), from where it can be
//! read ([`ReadAt`], [`LocalFile`], [`DirectFile`]), and how it is recognised again ([`ContentDigest`], [`ObjectHash`]).
//!
//! Architecture Invariant: whatever the size of a disk, memory is bounded: by the pool for the bytes, and by
//! [`AllocationMap::MAX_EXTENTS`] for the map.

mod buf;
mod digest;
mod direct;
mod extent;
mod file;
mod read;
mod workers;

pub use buf::{ALIGN, Buf, Lender, Pool, View};
pub use digest::{ContentDigest, ContentState, Digest, LEAF, ObjectHash, ObjectState, ParseDigestError, is_zero};
pub use direct::DirectFile;
pub use extent::{AllocationMap, Extent, MapBuilder, OutOfOrder};
pub use file::{LocalFile, LocalFileWriter};
pub use read::ReadAt;
