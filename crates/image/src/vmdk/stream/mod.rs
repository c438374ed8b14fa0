//! The streamOptimized VMDK, written and read from front to back.
//!
//! ```text
//! header ─ descriptor ─┬─ grain … grain ─ grain table ─┬─ … ─ grain directory ─ footer ─ end of stream
//!   the directory is   │  one marker and one zlib      │
//!   named by the footer│  stream each                  │
//! ```
//!
//! Each grain is [`GRAIN`] bytes of the disk, compressed for itself: so packing is spread over threads ([`Packer`], [`Unpacker`]), and
//! only placing is done in order ([`Writer`], [`Reader`]). None of them does I/O.
//!
//! Invariant: what is written depends on the disk's content and on the [fingerprint](Writer::fingerprint) alone, not on
//! how the content was cut into runs or on who packed them. So a file that was begun by one process can be continued by another.
//!
//! Invariant: a reader holds no more than one grain, and one bit for each grain of the disk; nothing is allocated by a length
//! that a file claims before the length is checked.

mod descriptor;
mod header;
mod look;
mod pack;
mod reader;
mod state;
mod unpack;
mod writer;

pub use descriptor::Adapter;
pub use pack::{PackedRun, Packer};
pub use reader::{Facts, Limits, Reader, ReaderState};
pub use unpack::{PackedGrain, Unpacker};
pub use writer::{MAX_CAPACITY, MAX_FILE, Writer, WriterState};

/// Bytes of a grain in the files that are written here, and in all that are known of others.
pub const GRAIN: u64 = 64 << 10;

/// Rounds bytes up to whole sectors.
fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(super::spec::SECTOR)
}
