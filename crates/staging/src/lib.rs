//! Staging storage: where a disk waits between the source and the target.
//!
//! A staged object is one file, written in parts and whole only once it is completed. The port ([`StagingStore`]) fits a
//! mounted path as it fits S3: parts may come in parallel and out of order, an upload can be taken up by another process,
//! and an object that exists is never overwritten.
//!
//! Beside an object may stand a note: a small text of the mover's (its journal), replaced as a whole.
//!
//! Architecture Invariant: a store never looks into the bytes.

mod body;
mod claim;
mod error;
mod hosts;
mod key;
mod port;
mod web;

pub mod conformance;
pub mod faulty;
pub mod http;
pub mod limit;
pub mod nfs;
pub mod retry;
pub mod s3;
#[cfg(test)]
mod testing;

pub use body::PartBody;
pub use claim::{Discarded, discard};
pub use error::{Error, Kind};
pub use hosts::{HostPolicy, InvalidRule, Refused};
pub use key::{InvalidKey, ObjectKey};
pub use port::{ObjectMeta, Part, PartLimits, StagingStore, UploadId, Uploaded};
