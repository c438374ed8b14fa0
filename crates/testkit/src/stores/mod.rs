//! Real staging servers, one file each, and what cuts and disturbs the way to them.
//!
//! Each is started by the test that needs it, on a free port of 127.0.0.1, with its data in a temporary folder, and ends with
//! the test.

mod server;

pub use server::{Server, free_port, listens, program};
