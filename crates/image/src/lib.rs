//! Disk images as streams.
//!
//! Writing starts from an allocation map: [`Layout`] says where every byte of the file comes from before the first one is
//! written, so any part of the file can be made independently of the others. Reading goes over [`ReadAt`], wherever the
//! bytes are.
//!
//! Architecture Invariant: this crate does not know where bytes come from or go to. It opens no file: whoever calls it
//! decides what may be opened ([`Opener`]).

mod format;

pub use format::{ImageFormat, UnknownFormat};
