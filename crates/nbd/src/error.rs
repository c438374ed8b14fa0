//! What can go wrong with a server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::wire::errno;

/// A failure of a connection or of one request on it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection broke.
    #[error("the connection to the NBD server broke: {0}")]
    Io(Arc<io::Error>),
    /// The server closed the connection.
    #[error("the NBD server closed the connection")]
    Closed,
    /// The server did not answer in time.
    #[error("the NBD server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The server said something that the protocol does not allow.
    #[error("the NBD server broke the protocol: {0}")]
    Protocol(String),
    /// There is no export of that name.
    #[error("the NBD server has no export {name:?}: {message}")]
    NoExport {
        /// The name that was asked for.
        name: String,
        /// The server's words.
        message: String,
    },
    /// The server refused a part of the handshake.
    #[error("the NBD server refused {option}: {message} (error {code})")]
    Refused {
        /// The option that was refused.
        option: &'static str,
        /// The error of the reply (`NBD_REP_ERR_…` without the top bit).
        code: u32,
        /// The server's words.
        message: String,
    },
    /// The server failed to carry out a request. The connection is still good.
    #[error("the NBD server cannot {action} {len} bytes at {offset}: {message} (errno {errno})")]
    Request {
        /// What was asked for: `"read"`, `"write"`, `"zero"`, `"flush"`.
        action: &'static str,
        /// Where the request starts.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The protocol's error number, which is Linux's `errno`.
        errno: u32,
        /// The server's words, or what the number means.
        message: String,
    },
    /// The export is read-only. Nothing was sent.
    #[error("the NBD server lets the export be read only")]
    ReadOnly,
    /// The request does not lie at whole blocks. Nothing was sent.
    #[error("{len} bytes at {offset} are not whole blocks of {block} bytes, which the NBD server asks for")]
    Unaligned {
        /// Where the request starts.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The least block that the server takes, in bytes.
        block: u32,
    },
    /// The server cannot do this at all, or not fast. Nothing was changed.
    #[error("the NBD server cannot write zeros without being sent them")]
    NoZeroes,
    /// The request lies outside the export. Nothing was sent.
    #[error("{len} bytes at {offset} lie outside the export of {size} bytes")]
    OutOfRange {
        /// Where the request starts.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// Size of the export in bytes.
        size: u64,
    },
}

impl Error {
    /// Whether the server has no room for what was to be written.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Request { errno, .. } if *errno == errno::NO_SPACE)
    }
}

/// What an error number of the protocol means.
pub(crate) fn meaning(number: u32) -> &'static str {
    match number {
        errno::PERM => "not permitted",
        errno::IO => "input/output error",
        errno::NO_MEMORY => "out of memory",
        errno::INVALID => "invalid request",
        errno::NO_SPACE => "no space left",
        errno::OVERFLOW => "too long",
        errno::NOT_SUPPORTED => "not supported",
        errno::SHUTDOWN => "the server shuts down",
        _ => "it does not say why",
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// A breach of the protocol.
pub(crate) fn breach<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Protocol(what.into()))
}
