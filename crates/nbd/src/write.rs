//! Changing an export: writes, zeros, flushes.

use std::ops::Range;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::oneshot;
use vmferry_block::Buf;

use crate::pending::{Order, Payload, Work};
use crate::wire::{command, command_flag, errno, transmission};
use crate::{Client, Error};

/// The longest stretch of zeros of one request, in bytes. There are no bytes to be sent with it, so the server's limit for
/// a request is not meant for it; but some disks write zeros slowly, and an answer has to come some time.
const MAX_ZEROES: u64 = 1 << 30;

/// What the server asks of requests ("Block size constraints"), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Requests start and end at multiples of it.
    pub min: u32,
    /// Requests at multiples of it are those that the server likes best.
    pub preferred: u32,
    /// The longest request; longer ones are cut.
    pub max: u32,
}

/// How zeros are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zeroing {
    /// Keep the space that the zeros take, instead of leaving a hole where that is possible.
    pub keep_space: bool,
    /// Only where it is faster than sending zeros: [`Error::NoZeroes`] else.
    pub only_fast: bool,
}

impl Client {
    /// What the server asks of requests.
    pub fn blocks(&self) -> Blocks {
        let export = self.export();
        Blocks {
            min: export.min_block,
            preferred: export.preferred_block,
            max: export.max_block,
        }
    }

    /// Whether the export cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.has(transmission::READ_ONLY)
    }

    /// Whether the server writes zeros without being sent them.
    pub fn can_zero(&self) -> bool {
        self.has(transmission::WRITE_ZEROES)
    }

    /// Whether the server says beforehand when it cannot write zeros fast.
    pub fn can_zero_fast(&self) -> bool {
        self.has(transmission::FAST_ZERO)
    }

    /// Writes the whole of `buf` at `offset`. It is durable after a [`flush`](Self::flush). Give an `Arc` to keep the buffer.
    ///
    /// [`Error::ReadOnly`], [`Error::OutOfRange`] and [`Error::Unaligned`] before anything is sent. After any other error,
    /// what the export holds there is not known.
    pub async fn write(&self, offset: u64, buf: impl Into<Arc<Buf>>) -> Result<(), Error> {
        let buf = buf.into();
        let whole = 0..buf.len();
        self.write_range(offset, buf, whole).await
    }

    /// Writes the part `range` of `buf` at `offset`. Errors as of [`write`](Self::write).
    pub async fn write_range(&self, offset: u64, buf: Arc<Buf>, range: Range<usize>) -> Result<(), Error> {
        self.send(offset, buf, range, 0).await
    }

    /// As [`write`](Self::write), and durable when it returns, as far as the server can make it so.
    pub async fn write_durably(&self, offset: u64, buf: impl Into<Arc<Buf>>) -> Result<(), Error> {
        let buf = buf.into();
        let whole = 0..buf.len();
        if self.has(transmission::FUA) {
            return self.send(offset, buf, whole, command_flag::FUA).await;
        }
        self.send(offset, buf, whole, 0).await?;
        self.flush().await
    }

    /// Makes `len` bytes at `offset` zeros, without sending them. Errors as of [`write`](Self::write), and
    /// [`Error::NoZeroes`] where the server cannot, or not as fast as asked for: then nothing was changed, and they can be
    /// written.
    pub async fn write_zeroes(&self, offset: u64, len: u64, how: Zeroing) -> Result<(), Error> {
        self.check_change(offset, len)?;
        if !self.can_zero() || (how.only_fast && !self.can_zero_fast()) {
            return Err(Error::NoZeroes);
        }
        let mut flags = 0;
        if how.keep_space {
            flags |= command_flag::NO_HOLE;
        }
        if how.only_fast {
            flags |= command_flag::FAST_ZERO;
        }
        let order = Order {
            command: command::WRITE_ZEROES,
            flags,
        };
        let min = u64::from(self.blocks().min);
        let whole = self.zero_in_steps(order, offset, len, MAX_ZEROES / min * min).await;
        match whole {
            // Some servers hold requests without bytes to the limit of those with them.
            Err(Error::Request {
                errno: errno::INVALID | errno::OVERFLOW,
                ..
            }) => self.zero_in_steps(order, offset, len, self.blocks().max.into()).await,
            Err(Error::Request {
                errno: errno::NOT_SUPPORTED,
                ..
            }) => Err(Error::NoZeroes),
            answer => answer,
        }
    }

    /// Waits until all writes that were answered before are durable. Where the server has no cache, they are already.
    pub async fn flush(&self) -> Result<(), Error> {
        if !self.has(transmission::FLUSH) {
            return Ok(());
        }
        let order = Order {
            command: command::FLUSH,
            flags: 0,
        };
        self.change(order, 0, 0, None).await
    }

    async fn zero_in_steps(&self, order: Order, offset: u64, len: u64, step: u64) -> Result<(), Error> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let now = step.min(end - at);
            self.change(order, at, now as u32, None).await?;
            at += now;
        }
        Ok(())
    }

    /// Sends a write, in pieces that the server takes.
    async fn send(&self, offset: u64, buf: Arc<Buf>, range: Range<usize>, flags: u16) -> Result<(), Error> {
        let range = range.start.min(buf.len())..range.end.min(buf.len());
        self.check_change(offset, range.len() as u64)?;
        let order = Order {
            command: command::WRITE,
            flags,
        };
        let max = self.blocks().max as usize;
        let pieces = range.clone().step_by(max).map(|start| {
            let piece = start..range.end.min(start + max);
            let (at, len) = (offset + (start - range.start) as u64, piece.len() as u32);
            let buf = Arc::clone(&buf);
            self.change(order, at, len, Some(Payload { buf, range: piece }))
        });
        try_join_all(pieces).await.map(drop)
    }

    async fn change(&self, order: Order, offset: u64, len: u32, payload: Option<Payload>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.enqueue(order, offset, len, Work::Change { payload, done }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn check_change(&self, offset: u64, len: u64) -> Result<(), Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        self.check(offset, len)?;
        let block = self.blocks().min;
        if !offset.is_multiple_of(block.into()) || !len.is_multiple_of(block.into()) {
            return Err(Error::Unaligned { offset, len, block });
        }
        Ok(())
    }

    fn has(&self, flag: u16) -> bool {
        self.export().flags & flag != 0
    }
}
