//! The numbers of the protocol ("Values").

/// `NBDMAGIC`.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: newstyle, and the front of every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// The front of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// The front of every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// The front of a simple reply.
pub const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// The front of a chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags of both sides: `FIXED_NEWSTYLE`, `NO_ZEROES`.
pub const FIXED_NEWSTYLE: u16 = 1;
/// See [`FIXED_NEWSTYLE`].
pub const NO_ZEROES: u16 = 2;

/// Options.
pub mod option {
    /// `NBD_OPT_GO`.
    pub const GO: u32 = 7;
    /// `NBD_OPT_STRUCTURED_REPLY`.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// `NBD_OPT_SET_META_CONTEXT`.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub mod answer {
    /// `NBD_REP_ACK`.
    pub const ACK: u32 = 1;
    /// `NBD_REP_INFO`.
    pub const INFO: u32 = 3;
    /// `NBD_REP_META_CONTEXT`.
    pub const META_CONTEXT: u32 = 4;
    /// The bit of every error.
    pub const ERROR: u32 = 1 << 31;
    /// `NBD_REP_ERR_UNKNOWN`: no such export.
    pub const UNKNOWN: u32 = ERROR | 6;
}

/// Information about an export.
pub mod info {
    /// `NBD_INFO_EXPORT`: size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// `NBD_INFO_BLOCK_SIZE`: least, preferred and largest request.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod command {
    /// `NBD_CMD_READ`.
    pub const READ: u16 = 0;
    /// `NBD_CMD_WRITE`.
    pub const WRITE: u16 = 1;
    /// `NBD_CMD_DISC`.
    pub const DISCONNECT: u16 = 2;
    /// `NBD_CMD_FLUSH`.
    pub const FLUSH: u16 = 3;
    /// `NBD_CMD_WRITE_ZEROES`.
    pub const WRITE_ZEROES: u16 = 6;
    /// `NBD_CMD_BLOCK_STATUS`.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub mod command_flag {
    /// `NBD_CMD_FLAG_FUA`: answered once it is durable.
    pub const FUA: u16 = 1;
    /// `NBD_CMD_FLAG_NO_HOLE`: zeros that have their space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// `NBD_CMD_FLAG_FAST_ZERO`: refused at once where it would be no faster than writing.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// What an export can do ("Transmission flags").
pub mod transmission {
    /// `NBD_FLAG_HAS_FLAGS`: without it the others mean nothing.
    pub const HAS_FLAGS: u16 = 1;
    /// `NBD_FLAG_READ_ONLY`.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `NBD_FLAG_SEND_FLUSH`.
    pub const FLUSH: u16 = 1 << 2;
    /// `NBD_FLAG_SEND_FUA`.
    pub const FUA: u16 = 1 << 3;
    /// `NBD_FLAG_SEND_WRITE_ZEROES`.
    pub const WRITE_ZEROES: u16 = 1 << 6;
    /// `NBD_FLAG_SEND_FAST_ZERO`.
    pub const FAST_ZERO: u16 = 1 << 11;
}

/// Error numbers ("Error values").
pub mod errno {
    /// `NBD_EPERM`.
    pub const PERM: u32 = 1;
    /// `NBD_EIO`.
    pub const IO: u32 = 5;
    /// `NBD_ENOMEM`.
    pub const NO_MEMORY: u32 = 12;
    /// `NBD_EINVAL`.
    pub const INVALID: u32 = 22;
    /// `NBD_ENOSPC`.
    pub const NO_SPACE: u32 = 28;
    /// `NBD_EOVERFLOW`.
    pub const OVERFLOW: u32 = 75;
    /// `NBD_ENOTSUP`.
    pub const NOT_SUPPORTED: u32 = 95;
    /// `NBD_ESHUTDOWN`.
    pub const SHUTDOWN: u32 = 108;
}

/// Chunks of structured replies.
pub mod chunk {
    /// The flag of the last chunk.
    pub const DONE: u16 = 1;
    /// `NBD_REPLY_TYPE_NONE`.
    pub const NONE: u16 = 0;
    /// `NBD_REPLY_TYPE_OFFSET_DATA`.
    pub const OFFSET_DATA: u16 = 1;
    /// `NBD_REPLY_TYPE_OFFSET_HOLE`.
    pub const OFFSET_HOLE: u16 = 2;
    /// `NBD_REPLY_TYPE_BLOCK_STATUS`.
    pub const BLOCK_STATUS: u16 = 5;
    /// The bit of every error.
    pub const ERROR: u16 = 1 << 15;
}

/// `NBD_STATE_ZERO` of `base:allocation`: reads as zeros.
pub const STATE_ZERO: u32 = 2;

/// Longest string that the protocol allows, in bytes.
pub const MAX_STRING: usize = 4096;

/// A request, ready to be sent. `offset` and `len` in bytes.
pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}
