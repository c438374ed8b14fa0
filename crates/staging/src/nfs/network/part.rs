//! The bytes of one part on their way into its file.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nfs_rs::WriteOutcome;
use tokio::time::{Instant, sleep_until};

use super::session::{Handle, Session};
use super::trouble::Trouble;
use crate::PartBody;

/// How many requests of one part are under way.
const UNDER_WAY: usize = 8;
/// How many bytes may wait for their commit. They are kept to be written again, should the server forget them.
const WINDOW: usize = 32 << 20;
/// How long the next piece is waited for before what was written is committed: whoever makes the pieces may need back the
/// buffers that wait.
const LULL: Duration = Duration::from_millis(20);

type Pieces = Box<dyn futures::Stream<Item = Bytes> + Send + Unpin>;

/// A part that is being written.
pub(super) struct Writing {
    pieces: Pieces,
    ended: bool,
    /// Where the next piece belongs.
    next: u64,
    /// What is not committed: where it belongs, and the bytes. The first ones are written or under way.
    kept: VecDeque<(u64, Bytes)>,
    bytes_kept: usize,
}

impl Writing {
    pub(super) fn new(offset: u64, body: PartBody) -> Self {
        Self {
            pieces: Box::new(body.into_stream()),
            ended: false,
            next: offset,
            kept: VecDeque::new(),
            bytes_kept: 0,
        }
    }

    /// Where the bytes end that came so far.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// Writes and commits the next bytes, or once more those that an attempt before did not commit; says whether there may be
    /// more.
    pub(super) async fn advance(&mut self, session: &Session, file: &Handle) -> Result<bool, Trouble> {
        let receipts = self.write(session, file).await?;
        if !receipts.is_empty() {
            session.commit(file, &receipts).await?;
        }
        self.kept.clear();
        self.bytes_kept = 0;
        Ok(!self.ended)
    }

    /// Writes until the window is full, the pieces end, or there is a lull.
    async fn write(&mut self, session: &Session, file: &Handle) -> Result<Vec<WriteOutcome>, Trouble> {
        let size = session.write_size as usize;
        let mut receipts = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut written = 0;
        let mut lull = None;
        loop {
            while under_way.len() < UNDER_WAY && written < self.kept.len() {
                let (offset, bytes) = self.kept[written].clone();
                under_way.push(session.write(file, offset, bytes));
                written += 1;
            }
            let wants_more = !self.ended && self.bytes_kept < WINDOW && under_way.len() < UNDER_WAY;
            if !wants_more && under_way.is_empty() {
                return Ok(receipts);
            }
            if !under_way.is_empty() || self.kept.is_empty() {
                lull = None;
            } else if lull.is_none() {
                lull = Some(Instant::now() + LULL);
            }
            tokio::select! {
                biased;
                Some(answer) = under_way.next() => receipts.extend(answer?),
                piece = self.pieces.next(), if wants_more => self.keep(piece, size),
                () = sleep_until(lull.unwrap_or_else(Instant::now)), if lull.is_some() => return Ok(receipts),
            }
        }
    }

    /// Takes in a piece, cut to the size of a request.
    fn keep(&mut self, piece: Option<Bytes>, size: usize) {
        let Some(mut piece) = piece else {
            self.ended = true;
            return;
        };
        self.bytes_kept += piece.len();
        while !piece.is_empty() {
            let front = piece.split_to(piece.len().min(size));
            let len = front.len() as u64;
            self.kept.push_back((self.next, front));
            self.next += len;
        }
    }
}
