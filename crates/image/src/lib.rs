//! Disk images as streams.
//!
//! Writing starts from an allocation map: [`Layout`] says where every byte of the file comes from before the first one is
//! written, so any part of the file can be made independently of the others. Reading goes over [`ReadAt`](vmferry_block::ReadAt), wherever
//! the bytes are ([`Image`]). What an image says of itself ([`inspect`]) and whether it is sound ([`check`]) need no backing file.
//!
//! Architecture Invariant: this crate does not know where bytes come from or go to. It opens no file: whoever calls it
//! decides what may be opened ([`Opener`]).

mod check;
mod codec;
mod error;
mod format;
mod image;
mod info;
mod layer;
mod layout;
mod packed;
mod place;
mod qcow2;
mod source;
mod tables;
pub mod vmdk;

pub use check::{Depth, Finding, Report, Severity, check};
pub use error::{Error, Kind};
pub use format::{ImageFormat, UnknownFormat};
pub use image::{DataRun, Image};
pub use info::{Info, Qcow2Info, VmdkExtent, VmdkInfo, inspect};
pub use layout::{Layout, Piece};
pub use source::{BackingRef, ExtentRef, Limits, NoBacking, Opener, Source};
