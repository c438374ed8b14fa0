//! The task that reads the replies ("Transmission phase", "Structured reply chunk message").

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::Error;
use crate::error::{breach, meaning};
use crate::handshake::text;
use crate::pending::{Pending, Table, Work};
use crate::wire::{self, chunk};

/// Most extents of a block status that are taken at once: what qemu sends at most is half of it.
const MAX_EXTENTS: u32 = 1 << 18;

/// Headers come out of a buffer of this size. It is small, so that the data behind them goes past it.
const HEADERS: usize = 256;

/// Reads the replies of one connection until it ends or fails.
pub struct Reader<R> {
    stream: BufReader<R>,
    table: Arc<Table>,
    /// The id of `base:allocation`.
    context: Option<u32>,
    structured: bool,
    /// How long a server may be silent while someone waits.
    limit: Duration,
}

/// The head of a chunk of a structured reply.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    flags: u16,
    kind: u16,
    /// Length of what follows, in bytes.
    len: u32,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from `stream` for the requests of `table`.
    pub fn new(stream: R, table: Arc<Table>, export: &crate::handshake::Export, limit: Duration) -> Self {
        Self {
            stream: BufReader::with_capacity(HEADERS, stream),
            table,
            context: export.allocation,
            structured: export.structured,
            limit,
        }
    }

    /// Reads until the connection ends, then fails whatever is under way.
    pub async fn run(mut self) {
        let error = loop {
            if let Err(error) = self.step().await {
                break error;
            }
        };
        self.table.fail(&error);
    }

    /// One reply, or one chunk of one.
    async fn step(&mut self) -> Result<(), Error> {
        self.wait().await?;
        let limit = self.limit;
        // From here on the server is in the middle of a message; a limit on silence, not on the whole: see `fill`.
        match timeout(limit, self.stream.read_u32())
            .await
            .map_err(|_| Error::Timeout(limit))??
        {
            wire::SIMPLE_MAGIC => self.simple().await,
            wire::CHUNK_MAGIC if self.structured => self.chunk().await,
            magic => breach(format!("a reply that starts with {magic:#010x}")),
        }
    }

    /// Waits for the next reply. Silence matters only while someone waits.
    async fn wait(&mut self) -> Result<(), Error> {
        loop {
            match timeout(self.limit, self.stream.fill_buf()).await {
                Ok(Ok([])) => return Err(Error::Closed),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if self.table.waits_longer_than(self.limit) => return Err(Error::Timeout(self.limit)),
                Err(_) => {}
            }
        }
    }

    async fn simple(&mut self) -> Result<(), Error> {
        let mut head = [0; 12];
        self.fill(&mut head).await?;
        let (errno, cookie) = (be32(&head[..4]), be64(&head[4..]));
        let mut request = self.request(cookie)?;
        let answer = match &mut request.work {
            _ if errno != 0 => Err(request_error(&request, errno, String::new())),
            Work::Read { buf, filled, .. } if !self.structured => match fill(&mut self.stream, buf, self.limit).await {
                Ok(()) => filled.add(0, request.len),
                Err(error) => Err(error),
            },
            Work::Change { .. } => Ok(()),
            _ => breach("a simple reply where a structured one was agreed upon"),
        };
        conclude(request, answer)
    }

    async fn chunk(&mut self) -> Result<(), Error> {
        let mut head = [0; 16];
        self.fill(&mut head).await?;
        let chunk = Chunk {
            flags: be16(&head[..2]),
            kind: be16(&head[2..4]),
            len: be32(&head[12..]),
        };
        let cookie = be64(&head[4..12]);
        let mut request = self.request(cookie)?;
        if let Err(error) = self.body(chunk, &mut request).await {
            return conclude(request, Err(error));
        }
        if chunk.flags & chunk::DONE == 0 {
            self.table.put(cookie, request);
        } else {
            request.finish();
        }
        Ok(())
    }

    /// What follows the head of a chunk. An error is a breach of the protocol or the end of the connection.
    async fn body(&mut self, chunk: Chunk, request: &mut Pending) -> Result<(), Error> {
        match chunk.kind {
            chunk::NONE if chunk.len == 0 && chunk.flags & chunk::DONE != 0 => Ok(()),
            chunk::OFFSET_DATA => self.data(chunk.len, request).await,
            chunk::OFFSET_HOLE if chunk.len == 12 => self.hole(request).await,
            chunk::BLOCK_STATUS => self.status(chunk.len, request).await,
            kind if kind & chunk::ERROR != 0 => self.error(chunk.len, request).await,
            kind => breach(format!("a chunk of type {kind} with {} bytes", chunk.len)),
        }
    }

    async fn data(&mut self, len: u32, request: &mut Pending) -> Result<(), Error> {
        let mut offset = [0; 8];
        let Some(len) = len.checked_sub(8).filter(|&len| len > 0) else {
            return breach("a chunk of data without data");
        };
        self.fill(&mut offset).await?;
        let (start, end) = range(request, be64(&offset), len)?;
        let Work::Read { buf, filled, .. } = &mut request.work else {
            return breach("data where it was not asked for");
        };
        filled.add(start, end)?;
        fill(&mut self.stream, &mut buf[start as usize..end as usize], self.limit).await
    }

    async fn hole(&mut self, request: &mut Pending) -> Result<(), Error> {
        let mut body = [0; 12];
        self.fill(&mut body).await?;
        let (start, end) = range(request, be64(&body[..8]), be32(&body[8..]))?;
        let Work::Read { buf, filled, .. } = &mut request.work else {
            return breach("a hole where it was not asked for");
        };
        filled.add(start, end)?;
        buf[start as usize..end as usize].fill(0);
        Ok(())
    }

    async fn status(&mut self, len: u32, request: &mut Pending) -> Result<(), Error> {
        let count = len.saturating_sub(4) / 8;
        if len != 4 + count * 8 || count == 0 || count > MAX_EXTENTS {
            return breach(format!("a block status of {len} bytes"));
        }
        let mut body = vec![0; len as usize];
        self.fill(&mut body).await?;
        let Work::Status { extents, .. } = &mut request.work else {
            return breach("block status where it was not asked for");
        };
        let (context, descriptors) = body.split_at(4);
        if Some(be32(context)) != self.context || !extents.is_empty() {
            return breach("block status of a context that was not asked for, or twice");
        }
        extents.extend(
            descriptors
                .chunks_exact(8)
                .map(|extent| (be32(&extent[..4]), be32(&extent[4..]))),
        );
        Ok(())
    }

    /// An error chunk: number, message and, for some types, an offset. The reply may go on after it.
    async fn error(&mut self, len: u32, request: &mut Pending) -> Result<(), Error> {
        if !(6..=6 + wire::MAX_STRING as u32 + 8).contains(&len) {
            return breach(format!("an error of {len} bytes"));
        }
        let mut body = vec![0; len as usize];
        self.fill(&mut body).await?;
        let (errno, message) = (be32(&body[..4]), be16(&body[4..6]) as usize);
        let Some(message) = body.get(6..6 + message) else {
            return breach("an error whose message is longer than the chunk");
        };
        if errno == 0 {
            return breach("an error without a number");
        }
        let error = request_error(request, errno, text(message));
        request.error.get_or_insert(error);
        Ok(())
    }

    fn request(&self, cookie: u64) -> Result<Pending, Error> {
        match self.table.take(cookie) {
            Some(request) => Ok(request),
            None => breach("a reply to a request that is not under way"),
        }
    }

    async fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        fill(&mut self.stream, buf, self.limit).await
    }
}

/// Ends a request. What broke the protocol or the connection ends the connection too.
fn conclude(request: Pending, answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Ok(()) => request.finish(),
        Err(error @ Error::Request { .. }) => request.fail(error),
        Err(error) => {
            request.fail(error.clone());
            return Err(error);
        }
    }
    Ok(())
}

/// Fills `buf`. The limit is on silence, so that a slow line is only slow.
async fn fill<R: AsyncRead + Unpin>(stream: &mut R, buf: &mut [u8], limit: Duration) -> Result<(), Error> {
    let mut at = 0;
    while at < buf.len() {
        match timeout(limit, stream.read(&mut buf[at..])).await {
            Ok(Ok(0)) => return Err(Error::Closed),
            Ok(Ok(count)) => at += count,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Error::Timeout(limit)),
        }
    }
    Ok(())
}

/// Where `len` bytes at `offset` of the export lie within a request.
fn range(request: &Pending, offset: u64, len: u32) -> Result<(u32, u32), Error> {
    let start = offset
        .checked_sub(request.offset)
        .filter(|&start| start < u64::from(request.len));
    let end = start
        .map(|start| start + u64::from(len))
        .filter(|&end| len > 0 && end <= u64::from(request.len));
    match (start, end) {
        (Some(start), Some(end)) => Ok((start as u32, end as u32)),
        _ => breach(format!(
            "{len} bytes at {offset} in reply to a request of {} bytes at {}",
            request.len, request.offset
        )),
    }
}

fn request_error(request: &Pending, errno: u32, message: String) -> Error {
    let message = if message.is_empty() {
        meaning(errno).to_owned()
    } else {
        message
    };
    Error::Request {
        action: request.action(),
        offset: request.offset,
        len: request.len.into(),
        errno,
        message,
    }
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u16::from(byte))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
