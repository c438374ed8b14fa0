//! Why the operator ends.

use std::net::SocketAddr;

use thiserror::Error;

/// Why the operator ends before it was asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// Another replica leads, or may: this process must do nothing more.
    #[error("this process does not lead any more: {0}; it ends so that nothing is done twice")]
    LeaseLost(String),
    /// An address could not be listened on.
    #[error("cannot listen on {address} for {what}: {source}; give another address")]
    Listen {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
}
