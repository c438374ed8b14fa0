//! The mapping tables that are in memory: those used last, within a fixed budget, for all files of a chain of images.
//!
//! Tables are read and kept in slices, so nothing is ever allocated because a number in a file says so. A walk over
//! all tables loads those that it will come to ahead, several at once, and those that lie in a row together: the file may be
//! an object in a store that is 20 ms away.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};

use crate::{Error, Source};

/// Tables are kept in slices of at most this many bytes.
pub(crate) const SLICE: u64 = 64 << 10;
/// The most bytes that are read at once.
const RUN: u64 = 1 << 20;
/// Slices with no more than this between them are read at once.
const GAP: u64 = 16 << 10;
/// How many reads ahead are under way at the same time.
const READS: usize = 16;

/// A cache of table slices.
#[derive(Debug)]
pub(crate) struct Tables {
    budget: usize,
    files: AtomicU32,
    kept: Mutex<Kept>,
}

/// Which file of the chain, and where in it.
type Key = (u32, u64);

#[derive(Debug, Default)]
struct Kept {
    slices: HashMap<Key, Slice>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slice {
    entries: Arc<[u8]>,
    used: u64,
}

impl Tables {
    /// A cache of about `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            files: AtomicU32::new(0),
            kept: Mutex::default(),
        }
    }

    /// How many bytes of tables may be loaded ahead for each of `layers` images.
    pub(crate) fn window(&self, layers: usize) -> u64 {
        (self.budget / 2 / layers.max(1)).max(SLICE as usize) as u64
    }

    fn lookup(&self, key: Key) -> Option<Arc<[u8]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let slice = kept.slices.get_mut(&key)?;
        slice.used = now;
        Some(Arc::clone(&slice.entries))
    }

    fn keep(&self, key: Key, entries: Arc<[u8]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let used = kept.clock;
        kept.bytes += entries.len();
        if let Some(before) = kept.slices.insert(key, Slice { entries, used }) {
            kept.bytes -= before.entries.len();
        }
        if kept.bytes > self.budget {
            // More than a window and the tables above it stays.
            kept.drop_oldest(self.budget / 4 * 3);
        }
    }
}

impl Kept {
    /// Many at once, so that finding the oldest costs little for each.
    fn drop_oldest(&mut self, bytes: usize) {
        let mut times: Vec<(u64, usize)> = self.slices.values().map(|s| (s.used, s.entries.len())).collect();
        times.sort_unstable();
        let mut left = self.bytes;
        let keep_from = times.iter().find_map(|(used, len)| {
            let fits = left <= bytes;
            left -= len;
            fits.then_some(*used)
        });
        self.slices
            .retain(|_, slice| keep_from.is_some_and(|from| slice.used >= from));
        self.bytes = self.slices.values().map(|slice| slice.entries.len()).sum();
    }
}

/// The tables of one file.
pub(crate) struct FileTables {
    source: Source,
    /// Tells the files of a chain apart.
    id: u32,
    tables: Arc<Tables>,
}

impl FileTables {
    pub(crate) fn new(source: Source, tables: Arc<Tables>) -> Self {
        let id = tables.files.fetch_add(1, Ordering::Relaxed);
        Self { source, id, tables }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The table entries in `len` bytes (at most [`SLICE`]) at `offset`, within the file.
    pub(crate) async fn get(&self, offset: u64, len: u64) -> Result<Arc<[u8]>, Error> {
        if let Some(entries) = self.tables.lookup((self.id, offset)) {
            return Ok(entries);
        }
        let buf = self.source.read(offset, len.min(SLICE)).await?;
        let entries: Arc<[u8]> = Arc::from(&*buf);
        self.tables.keep((self.id, offset), Arc::clone(&entries));
        Ok(entries)
    }

    /// As [`get`](Self::get) for a slice of a table that is one piece and may be long: what is not there yet is loaded together with the slices
    /// that follow it.
    pub(crate) async fn get_in(&self, table: &Range<u64>, slice: u64) -> Result<Arc<[u8]>, Error> {
        let slice_at = |start: u64| start..(start + SLICE).min(table.end);
        let first = slice_at(table.start.saturating_add(slice.saturating_mul(SLICE)).min(table.end));
        if let Some(entries) = self.tables.lookup((self.id, first.start)) {
            return Ok(entries);
        }
        let ahead = self.tables.window(1).min(RUN) / SLICE;
        let starts = (0..ahead)
            .map(|n| first.start + n * SLICE)
            .take_while(|start| *start < table.end);
        self.load(starts.map(slice_at).collect()).await?;
        self.get(first.start, first.end - first.start).await
    }

    /// Loads slices that will be asked for soon. Each is what [`get`](Self::get) will be called with: within the file, and not
    /// longer than [`SLICE`].
    pub(crate) async fn load(&self, mut slices: Vec<Range<u64>>) -> Result<(), Error> {
        slices.retain(|slice| self.tables.lookup((self.id, slice.start)).is_none());
        let reads = runs(slices).into_iter().map(|run| self.load_run(run));
        futures::stream::iter(reads)
            .buffer_unordered(READS)
            .try_collect::<()>()
            .await
    }

    async fn load_run(&self, run: Vec<Range<u64>>) -> Result<(), Error> {
        let start = run.first().map_or(0, |slice| slice.start);
        let end = run.iter().map(|slice| slice.end).max().unwrap_or(start);
        let buf = self.source.read(start, end - start).await?;
        for slice in run {
            let bytes = buf.get((slice.start - start) as usize..(slice.end - start) as usize);
            self.tables
                .keep((self.id, slice.start), Arc::from(bytes.unwrap_or_default()));
        }
        Ok(())
    }
}

/// Puts together what can be read at once.
fn runs(mut slices: Vec<Range<u64>>) -> Vec<Vec<Range<u64>>> {
    slices.sort_unstable_by_key(|slice| slice.start);
    slices.dedup();
    let mut runs: Vec<Vec<Range<u64>>> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for slice in slices {
        match runs.last_mut() {
            Some(run) if slice.start <= end + GAP && slice.end.max(end) - start <= RUN => {
                end = slice.end.max(end);
                run.push(slice);
            }
            _ => {
                (start, end) = (slice.start, slice.end);
                runs.push(vec![slice]);
            }
        }
    }
    runs
}

/// A big-endian number of 8 bytes in a table.
pub(crate) fn be64(table: &[u8], index: u64) -> Option<u64> {
    let words = table.as_chunks::<8>().0;
    words.get(index as usize).map(|word| u64::from_be_bytes(*word))
}

/// A little-endian number of 4 bytes in a table.
pub(crate) fn le32(table: &[u8], index: u64) -> Option<u32> {
    let words = table.as_chunks::<4>().0;
    words.get(index as usize).map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use vmferry_block::{Buf, ReadAt};

    use super::*;
    use crate::ImageFormat;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl ReadAt for Counting {
        fn size(&self) -> u64 {
            u64::MAX
        }

        async fn read_at(&self, offset: u64, mut buf: Buf) -> io::Result<Buf> {
            self.0.fetch_add(1, Ordering::Relaxed);
            buf.fill(offset as u8);
            Ok(buf)
        }
    }

    fn counting(budget: usize) -> (Arc<Counting>, FileTables) {
        let file = Arc::new(Counting::default());
        let source = Source::new("tables", ImageFormat::Qcow2, file.clone());
        (file, FileTables::new(source, Arc::new(Tables::new(budget))))
    }

    #[tokio::test]
    async fn stays_within_its_budget_and_keeps_what_is_used() {
        let (file, tables) = counting(100 * 512);
        for n in 0..10_000 {
            tables.get(0, 512).await.unwrap();
            let slice = tables.get(512 * (n + 1), 512).await.unwrap();
            assert_eq!(slice.len(), 512);
            assert!(tables.tables.kept.lock().unwrap().bytes <= 100 * 512);
        }
        assert_eq!(file.0.load(Ordering::Relaxed), 10_001, "the slice in use was dropped");
    }

    #[tokio::test]
    async fn what_lies_in_a_row_is_read_at_once_and_once() {
        let (file, tables) = counting(8 << 20);
        let row = (0..64).map(|n| n * SLICE..(n + 1) * SLICE);
        let far = [1 << 40..(1 << 40) + 512, (1 << 40) + 8192..(1 << 40) + 8704];
        let slices: Vec<_> = row.chain(far).collect();
        tables.load(slices.iter().rev().cloned().collect()).await.unwrap();
        assert_eq!(
            file.0.load(Ordering::Relaxed),
            5,
            "4 MiB in a row, and two slices close to each other"
        );
        tables.load(slices.clone()).await.unwrap();
        for slice in slices {
            let got = tables.get(slice.start, slice.end - slice.start).await.unwrap();
            assert_eq!(got.len() as u64, slice.end - slice.start);
        }
        assert_eq!(file.0.load(Ordering::Relaxed), 5);
    }
}
