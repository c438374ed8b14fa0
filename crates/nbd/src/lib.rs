//! An asynchronous client of the network block device protocol.
//!
//! It speaks the fixed newstyle handshake, structured replies and `base:allocation` block status, and falls back to simple
//! replies. One connection carries many requests at once: a task writes them, another one reads the replies, straight into
//! the buffers that their callers brought.
//!
//! It writes at whole blocks of the size that the server asks for, and never to an export that is read-only.
//!
//! The server is not trusted: every length that it sends is checked before anything is allocated or read, every byte of a
//! buffer is accounted for before the buffer is handed out, and every wait has a limit.
//!
//! The protocol: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. Section names in this crate are its.
//!
//! Architecture Invariant: this crate knows no hypervisor and opens no connection: it takes any byte stream.

mod allocation;
mod client;
mod error;
mod handshake;
mod pending;
mod reader;
mod wire;
mod write;

pub use client::Client;
pub use error::Error;
pub use write::{Blocks, Zeroing};
