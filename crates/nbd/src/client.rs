//! The client: one connection to one export.
//!
//! How it reads is here; how it writes, in [`write`](crate::write).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vmferry_block::Buf;

use crate::Error;
use crate::handshake::{self, Export};
use crate::pending::{Filled, Order, Pending, Table, Work};
use crate::reader::Reader;
use crate::wire::{self, command};

/// A read, a question: without flags.
const fn plain(command: u16) -> Order {
    Order { command, flags: 0 }
}

/// How long the handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// How long the server may be silent while someone waits for it.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);

/// How long the goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// How many requests wait for being written before their callers wait.
const QUEUE: usize = 64;

/// A connection to one export. Reads may be under way in any number; they are answered in any order.
///
/// Dropping it says goodbye to the server.
pub struct Client {
    export: Export,
    queue: mpsc::Sender<Pending>,
    writer: JoinHandle<()>,
}

impl Client {
    /// Opens the export `name` over `stream`.
    pub async fn connect<S>(stream: S, name: &str) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::connect_within(stream, name, HANDSHAKE_LIMIT, SILENCE_LIMIT).await
    }

    /// [`connect`](Self::connect) with its limits: for the handshake as a whole, and for the server's silence afterwards.
    pub async fn connect_within<S>(
        mut stream: S,
        name: &str,
        handshake: Duration,
        silence: Duration,
    ) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let export = timeout(handshake, handshake::negotiate(&mut stream, name))
            .await
            .map_err(|_| Error::Timeout(handshake))??;
        let (read, write) = tokio::io::split(stream);
        let table = Arc::new(Table::default());
        let reader = tokio::spawn(Reader::new(read, Arc::clone(&table), &export, silence).run());
        let (queue, requests) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write_requests(write, requests, table, reader, silence));
        Ok(Self { export, queue, writer })
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.export.size
    }

    /// Fills the whole of `buf` from `offset` and gives it back.
    ///
    /// A request that the server takes as it is goes straight into `buf`; one that is too long for it, or not aligned for it,
    /// is put together from pieces.
    pub async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let len = self.check(offset, buf.len() as u64)?;
        let min = u64::from(self.export.min_block);
        let fits = len <= u64::from(self.export.max_block) && offset.is_multiple_of(min) && len % min == 0;
        match len {
            0 => Ok(buf),
            _ if fits => self.request(offset, buf).await,
            _ => self.read_pieces(offset, buf).await,
        }
    }

    async fn read_pieces(&self, offset: u64, mut buf: Buf) -> Result<Buf, Error> {
        let (min, max) = (u64::from(self.export.min_block), u64::from(self.export.max_block));
        let end = offset + buf.len() as u64;
        let mut at = offset / min * min;
        while at < end {
            let until = (at + max).min(end.next_multiple_of(min)).min(self.export.size);
            let piece = self.request(at, Buf::alone((until - at) as usize)).await?;
            let (from, to) = (at.max(offset), until.min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
            at = until;
        }
        Ok(buf)
    }

    /// One request. The caller has checked that it lies within the export and fits into one.
    async fn request(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let (done, answer) = oneshot::channel();
        let len = buf.len() as u32;
        let filled = Filled::default();
        self.enqueue(plain(command::READ), offset, len, Work::Read { buf, filled, done })
            .await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Lengths and flags of the extents from `offset` on, at least one. They may end before `len` bytes, or after.
    pub(crate) async fn status(&self, offset: u64, len: u32) -> Result<Vec<(u32, u32)>, Error> {
        let (done, answer) = oneshot::channel();
        let extents = Vec::new();
        self.enqueue(
            plain(command::BLOCK_STATUS),
            offset,
            len,
            Work::Status { extents, done },
        )
        .await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// What was agreed upon.
    pub(crate) fn export(&self) -> &Export {
        &self.export
    }

    /// Says goodbye and waits until the connection is closed.
    pub async fn disconnect(self) {
        let Self { queue, writer, .. } = self;
        drop(queue);
        let _ = timeout(2 * GOODBYE_LIMIT, writer).await;
    }

    pub(crate) async fn enqueue(&self, order: Order, offset: u64, len: u32, work: Work) -> Result<(), Error> {
        let since = Instant::now();
        let request = Pending {
            order,
            offset,
            len,
            since,
            work,
            error: None,
        };
        self.queue.send(request).await.map_err(|_| Error::Closed)
    }

    /// Refuses what lies outside the export.
    pub(crate) fn check(&self, offset: u64, len: u64) -> Result<u64, Error> {
        let size = self.export.size;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(len),
            _ => Err(Error::OutOfRange { offset, len, size }),
        }
    }
}

/// Writes requests until the client is dropped or the connection fails, then says goodbye.
async fn write_requests<W: AsyncRead + AsyncWrite>(
    mut stream: WriteHalf<W>,
    mut requests: mpsc::Receiver<Pending>,
    table: Arc<Table>,
    reader: JoinHandle<()>,
    limit: Duration,
) {
    let mut batch = Vec::with_capacity(QUEUE);
    while requests.recv_many(&mut batch, QUEUE).await > 0 {
        if let Err(error) = write_batch(&mut stream, &mut batch, &table, limit).await {
            table.fail(&error);
            break;
        }
    }
    let goodbye = wire::request(command::DISCONNECT, 0, u64::MAX, 0, 0);
    let _ = write(&mut stream, &goodbye, GOODBYE_LIMIT).await;
    let _ = timeout(GOODBYE_LIMIT, stream.shutdown()).await;
    let stop = reader.abort_handle();
    if timeout(GOODBYE_LIMIT, reader).await.is_err() {
        stop.abort();
    }
    // Whoever came after the failure is not left waiting.
    table.fail(&Error::Closed);
    requests.close();
    while let Some(request) = requests.recv().await {
        request.fail(Error::Closed);
    }
}

/// Writes requests, each with the bytes that belong to it. Those without bytes go together.
async fn write_batch<W: AsyncWrite + Unpin>(
    stream: &mut W,
    batch: &mut Vec<Pending>,
    table: &Table,
    limit: Duration,
) -> Result<(), Error> {
    let mut bytes = Vec::with_capacity(batch.len() * 28);
    for mut request in batch.drain(..) {
        let (order, offset, len, payload) = (request.order, request.offset, request.len, request.payload());
        let Some(cookie) = table.add(request) else { continue };
        bytes.extend(wire::request(order.command, order.flags, cookie, offset, len));
        if let Some(payload) = payload {
            write(stream, &bytes, limit).await?;
            bytes.clear();
            write(stream, &payload.buf[payload.range], limit).await?;
        }
    }
    write(stream, &bytes, limit).await?;
    timeout(limit, stream.flush())
        .await
        .map_err(|_| Error::Timeout(limit))?
        .map_err(Error::from)
}

/// Writes `bytes`. The limit is on standstill, so that a slow line is only slow.
async fn write<W: AsyncWrite + Unpin>(stream: &mut W, mut bytes: &[u8], limit: Duration) -> Result<(), Error> {
    while !bytes.is_empty() {
        match timeout(limit, stream.write(bytes)).await {
            Ok(Ok(0)) => return Err(Error::Closed),
            Ok(Ok(count)) => bytes = &bytes[count..],
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Error::Timeout(limit)),
        }
    }
    Ok(())
}
