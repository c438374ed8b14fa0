//! The VMDK format: VMware's "Virtual Disk Format 5.0".
//!
//! A disk is a text descriptor that lists extents: plain files, files with grain tables, zeros. A file with grain tables may
//! hold the descriptor of a disk of which it is the only extent. A stream-optimized one has compressed grains and is written
//! front to back.

mod read;
pub(crate) mod spec;
pub mod stream;

pub(crate) use self::read::Vmdk;
