//! Writing the volume's file, in ascending order: the format's own structures, and the content as it comes.

use std::future::pending;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use vmferry_block::{Buf, Pool, is_zero};
use vmferry_image::{Layout, Piece};

use super::note::Notes;
use crate::chunk::{CHUNK, Chunk, Span};
use crate::error::{Error, Kind, target};
use crate::hasher::{Hashed, States};
use crate::progress::Progress;

/// Writes under way at once, if the sink takes that many.
const MOST: usize = 8;

/// The volume's file, written up to a place.
pub(super) struct Writer<'a> {
    layout: &'a Layout,
    progress: &'a Progress,
    concurrency: usize,
    /// Everything before it was written, or reads as zeros.
    at: u64,
    /// Buffers for what cannot be written as it came: one for each write under way, and one more.
    scratch: Pool,
    under_way: FuturesUnordered<BoxFuture<'a, Result<(), Error>>>,
    notes: Notes<'a>,
    noting: Option<BoxFuture<'a, Result<bool, Error>>>,
}

impl<'a> Writer<'a> {
    /// Chunks of memory that it has for itself, at most.
    pub(super) const SCRATCH: usize = MOST + 1;

    /// Goes on at byte `at` of the file.
    pub(super) fn new(layout: &'a Layout, progress: &'a Progress, at: u64, notes: Notes<'a>) -> Self {
        let concurrency = notes.sink.concurrency().clamp(1, MOST);
        Self {
            layout,
            progress,
            concurrency,
            at,
            scratch: Pool::new(CHUNK as usize, concurrency + 1),
            under_way: FuturesUnordered::new(),
            notes,
            noting: None,
        }
    }

    /// Writes all that comes out of `hashed`. All writes have ended when this returns.
    pub(super) async fn run(&mut self, mut hashed: mpsc::Receiver<Hashed>) -> Result<(), Error> {
        let written = self.all(&mut hashed).await;
        // Whoever feeds us sees the closed channel and stops.
        hashed.close();
        let settled = self.settle().await;
        let noted = self.end_note().await;
        written.and(settled).and(noted)
    }

    async fn all(&mut self, hashed: &mut mpsc::Receiver<Hashed>) -> Result<(), Error> {
        loop {
            let noting = async {
                match &mut self.noting {
                    Some(noting) => noting.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(outcome) = self.under_way.next() => outcome?,
                noted = noting => {
                    self.noting = None;
                    self.notes.noted(noted?);
                }
                next = hashed.recv() => match next {
                    Some(Hashed { chunk, done, states }) => {
                        self.chunk(chunk).await?;
                        self.progress.advance(done);
                        let due = |states: &States| self.noting.is_none() && self.notes.due(states.object.len);
                        if let Some(states) = states.filter(due) {
                            self.settle().await?;
                            self.noting = Some(self.notes.note(states, self.at));
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    /// Writes what the format adds after the last content.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let written = self.structures(self.layout.len()).await;
        written.and(self.settle().await)
    }

    /// Notes how far it came, when it cannot go on.
    pub(super) async fn note(&mut self, states: States) -> Result<(), Error> {
        self.noting = Some(self.notes.note(states, self.at));
        self.end_note().await
    }

    async fn end_note(&mut self) -> Result<(), Error> {
        match self.noting.take() {
            Some(noting) => noting.await.map(|keeps| self.notes.noted(keeps)),
            None => Ok(()),
        }
    }

    /// Waits for all writes that are under way.
    async fn settle(&mut self) -> Result<(), Error> {
        let mut all = Ok(());
        while let Some(outcome) = self.under_way.next().await {
            all = all.and(outcome);
        }
        all
    }

    async fn chunk(&mut self, chunk: Chunk) -> Result<(), Error> {
        let mut places = Vec::new();
        for span in &chunk.spans {
            self.places(*span, &mut places)?;
        }
        match places[..] {
            [(offset, Span { at: 0, len, .. })] if len == chunk.buf.len() => self.data(offset, chunk.buf).await?,
            _ => {
                for (offset, span) in places {
                    let mut buf = self.buffer(span.len).await?;
                    buf.copy_from_slice(chunk.bytes(&span));
                    self.data(offset, buf).await?;
                }
            }
        }
        Ok(())
    }

    /// Where in the file the pieces of a span go. Pieces that lie in a row on both sides are one, whatever the disk has
    /// between them.
    fn places(&self, mut span: Span, places: &mut Vec<(u64, Span)>) -> Result<(), Error> {
        while span.len > 0 {
            let Some((offset, run)) = self.layout.file_offset(span.guest) else {
                return Err(Error::new(Kind::StagedCorrupt, "write", "the volume").detail(format!(
                    "the image has data at {} that its own tables do not name",
                    span.guest
                )));
            };
            let len = span.len.min(usize::try_from(run).unwrap_or(usize::MAX));
            match places.last_mut() {
                Some((before, last)) if *before + last.len as u64 == offset && last.at + last.len == span.at => {
                    last.len += len;
                }
                _ => places.push((offset, Span { len, ..span })),
            }
            span = Span {
                at: span.at + len,
                len: span.len - len,
                guest: span.guest + len as u64,
            };
        }
        Ok(())
    }

    async fn data(&mut self, offset: u64, buf: Buf) -> Result<(), Error> {
        self.structures(offset).await?;
        self.at = offset + buf.len() as u64;
        self.write(offset, buf).await
    }

    /// Writes the format's own structures that lie before `end`, as far as they are not written.
    async fn structures(&mut self, end: u64) -> Result<(), Error> {
        let layout = self.layout;
        let mut open: Option<(u64, Buf)> = None;
        for piece in layout.pieces(self.at..end) {
            let Piece::Meta { offset, bytes } = piece else { continue };
            let (start, mut buf) = match open.take() {
                Some((start, buf))
                    if start + buf.len() as u64 == offset && buf.len() + bytes.len() <= buf.capacity() =>
                {
                    (start, buf)
                }
                full => {
                    if let Some((start, buf)) = full {
                        self.write(start, buf).await?;
                    }
                    (offset, self.buffer(0).await?)
                }
            };
            let filled = buf.len();
            buf.set_len(filled + bytes.len());
            buf[filled..].copy_from_slice(&bytes);
            open = Some((start, buf));
        }
        if let Some((start, buf)) = open {
            self.write(start, buf).await?;
        }
        self.at = self.at.max(end);
        Ok(())
    }

    /// A scratch buffer. There always is one: fewer writes are under way than there are buffers.
    async fn buffer(&mut self, len: usize) -> Result<Buf, Error> {
        self.room().await?;
        Ok(self.scratch.take(len).await)
    }

    /// Writes `buf`, unless it is zeros: what is never written reads as zeros.
    async fn write(&mut self, offset: u64, buf: Buf) -> Result<(), Error> {
        if is_zero(&buf) {
            return Ok(());
        }
        self.room().await?;
        let (sink, progress) = (self.notes.sink, self.progress);
        self.under_way.push(Box::pin(async move {
            let written = sink.write(offset, buf).await;
            progress.alive();
            written.map_err(|error| target(error, "the volume"))
        }));
        Ok(())
    }

    /// Waits until there is room for one more write.
    async fn room(&mut self) -> Result<(), Error> {
        while self.under_way.len() >= self.concurrency {
            match self.under_way.next().await {
                Some(outcome) => outcome?,
                None => break,
            }
        }
        Ok(())
    }
}
