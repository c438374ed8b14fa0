//! The fixed newstyle handshake ("Newstyle negotiation").

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Error;
use crate::error::breach;
use crate::wire::{self, answer, info, option, transmission};

/// The context whose flags say what is allocated.
const ALLOCATION: &str = "base:allocation";

/// Longest reply to an option that is read. A name, its description and a few numbers fit many times.
const MAX_REPLY: usize = 4 * wire::MAX_STRING;

/// How many replies to one option are read.
const MAX_REPLIES: usize = 64;

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Size in bytes.
    pub size: u64,
    /// What it can do ([`wire::transmission`]).
    pub flags: u16,
    /// Requests start and end at multiples of so many bytes.
    pub min_block: u32,
    /// Requests of so many bytes, or a multiple of them, are those that the server likes best.
    pub preferred_block: u32,
    /// The longest request in bytes.
    pub max_block: u32,
    /// Whether replies are structured.
    pub structured: bool,
    /// The id of `base:allocation`, where the server has it.
    pub allocation: Option<u32>,
}

/// Agrees with the server on the export `name`. The stream is then ready for requests.
pub async fn negotiate<S>(stream: &mut S, name: &str) -> Result<Export, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if name.len() > wire::MAX_STRING {
        return breach(format!("the export's name has {} bytes", name.len()));
    }
    greet(stream).await?;
    let structured = structured_reply(stream).await?;
    let allocation = if structured {
        meta_context(stream, name).await?
    } else {
        None
    };
    let mut export = go(stream, name).await?;
    export.structured = structured;
    export.allocation = allocation;
    Ok(export)
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Error> {
    if stream.read_u64().await? != wire::MAGIC {
        return breach("it does not greet as an NBD server");
    }
    if stream.read_u64().await? != wire::OPTION_MAGIC {
        return breach("it speaks the oldstyle protocol");
    }
    let flags = stream.read_u16().await?;
    if flags & wire::FIXED_NEWSTYLE == 0 {
        return breach("it does not speak the fixed newstyle protocol");
    }
    let ours = flags & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
    stream.write_u32(u32::from(ours)).await?;
    Ok(())
}

/// `NBD_OPT_STRUCTURED_REPLY`. A server that does not know it says so, and replies simply.
async fn structured_reply<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<bool, Error> {
    send(stream, option::STRUCTURED_REPLY, &[]).await?;
    match receive(stream, option::STRUCTURED_REPLY).await? {
        (answer::ACK, _) => Ok(true),
        (kind, _) if kind & answer::ERROR != 0 => Ok(false),
        (kind, _) => breach(format!("it answers structured replies with {kind}")),
    }
}

/// `NBD_OPT_SET_META_CONTEXT` for `base:allocation`: its id, or `None` where the server does not have it.
async fn meta_context<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, name: &str) -> Result<Option<u32>, Error> {
    let mut data = string(name);
    data.extend(1u32.to_be_bytes());
    data.extend(string(ALLOCATION));
    send(stream, option::SET_META_CONTEXT, &data).await?;
    let mut id = None;
    for _ in 0..MAX_REPLIES {
        match receive(stream, option::SET_META_CONTEXT).await? {
            (answer::ACK, _) => return Ok(id),
            (answer::META_CONTEXT, data) => {
                let Some((number, context)) = data.split_first_chunk() else {
                    return breach("a meta context without an id");
                };
                if context == ALLOCATION.as_bytes() {
                    id = Some(u32::from_be_bytes(*number));
                }
            }
            // The export's name is checked again by GO, which says more about it.
            (kind, _) if kind & answer::ERROR != 0 => return Ok(None),
            (kind, _) => return breach(format!("it answers the meta context with {kind}")),
        }
    }
    breach("it answers the meta context without end")
}

/// `NBD_OPT_GO`: size and limits of the export.
async fn go<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, name: &str) -> Result<Export, Error> {
    let mut data = string(name);
    data.extend(1u16.to_be_bytes());
    data.extend(info::BLOCK_SIZE.to_be_bytes());
    send(stream, option::GO, &data).await?;
    let mut size = None;
    // What holds where the server does not say ("Block size constraints").
    let (mut min_block, mut preferred_block, mut max_block) = (1, 4096, 32 << 20);
    for _ in 0..MAX_REPLIES {
        match receive(stream, option::GO).await? {
            (answer::ACK, _) => {
                let Some((size, flags)) = size else {
                    return breach("it does not say how large the export is");
                };
                return Ok(Export {
                    size,
                    flags,
                    min_block,
                    preferred_block,
                    max_block,
                    structured: false,
                    allocation: None,
                });
            }
            (answer::INFO, data) => match (u16_at(&data, 0), data.len()) {
                (Some(info::EXPORT), 12) => {
                    let flags = u16_at(&data, 10).filter(|flags| flags & transmission::HAS_FLAGS != 0);
                    size = Some((checked_size(u64_at(&data, 2))?, flags.unwrap_or(0)));
                }
                (Some(info::BLOCK_SIZE), 14) => {
                    (min_block, max_block) = blocks(u32_at(&data, 2), u32_at(&data, 10))?;
                    // Only advice: one that makes no sense is not taken.
                    let preferred = u32_at(&data, 6);
                    let sensible = preferred.is_power_of_two() && (min_block..=max_block).contains(&preferred);
                    preferred_block = if sensible { preferred } else { min_block.max(4096) };
                }
                (Some(info::EXPORT | info::BLOCK_SIZE) | None, len) => {
                    return breach(format!("information about the export of {len} bytes"));
                }
                _ => {}
            },
            (answer::UNKNOWN, message) => {
                return Err(Error::NoExport {
                    name: name.to_owned(),
                    message: text(&message),
                });
            }
            (kind, message) if kind & answer::ERROR != 0 => {
                return Err(Error::Refused {
                    option: "to open the export",
                    code: kind & !answer::ERROR,
                    message: text(&message),
                });
            }
            (kind, _) => return breach(format!("it answers the export with {kind}")),
        }
    }
    breach("it answers the export without end")
}

fn checked_size(size: u64) -> Result<u64, Error> {
    match i64::try_from(size) {
        Ok(_) => Ok(size),
        Err(_) => breach(format!("an export of {size} bytes")),
    }
}

/// The least and the largest request: powers of two up to 64 KiB, and multiples of them from there.
fn blocks(min: u32, max: u32) -> Result<(u32, u32), Error> {
    if !min.is_power_of_two() || min > 1 << 16 || max < min {
        return breach(format!("requests from {min} to {max} bytes"));
    }
    let max = max.min(32 << 20);
    Ok((min, max - max % min))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, option: u32, data: &[u8]) -> Result<(), Error> {
    let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, option: u32) -> Result<(u32, Vec<u8>), Error> {
    if stream.read_u64().await? != wire::OPTION_REPLY_MAGIC {
        return breach("a reply to an option without its magic");
    }
    let (replied, kind) = (stream.read_u32().await?, stream.read_u32().await?);
    let len = stream.read_u32().await? as usize;
    if replied != option || len > MAX_REPLY {
        return breach(format!(
            "a reply of {len} bytes to option {replied} after option {option}"
        ));
    }
    let mut data = vec![0; len];
    stream.read_exact(&mut data).await?;
    Ok((kind, data))
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The server's words, without what could disturb a terminal or a log.
pub fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
