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
    /// `NBD_CMD_DISC`.
    pub const DISCONNECT: u16 = 2;
    /// `NBD_CMD_BLOCK_STATUS`.
    pub const BLOCK_STATUS: u16 = 7;
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
pub fn request(command: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}
