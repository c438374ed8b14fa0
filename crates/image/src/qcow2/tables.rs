//! The mapping tables that are in memory: those used last, within a fixed budget, for a whole chain of images.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmferry_block::{Buf, ReadAt};

/// Tables are read and kept in slices of at most this many bytes.
pub(crate) const SLICE: u64 = 64 << 10;

/// A cache of table slices.
#[derive(Debug)]
pub(crate) struct Tables {
    budget: usize,
    kept: Mutex<Kept>,
}

/// Which image of the chain, and where in its file.
type Key = (u32, u64);

#[derive(Debug, Default)]
struct Kept {
    slices: HashMap<Key, Slice>,
    entries: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slice {
    entries: Arc<[u64]>,
    used: u64,
}

impl Tables {
    /// A cache of about `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            kept: Mutex::default(),
        }
    }

    /// The table entries in `len` bytes (at most [`SLICE`]) at `offset` of the file of image `layer`.
    pub(crate) async fn get(&self, layer: u32, file: &dyn ReadAt, offset: u64, len: u64) -> io::Result<Arc<[u64]>> {
        if let Some(entries) = self.lookup((layer, offset)) {
            return Ok(entries);
        }
        let buf = file.read_at(offset, Buf::alone(len.min(SLICE) as usize)).await?;
        let (words, _) = buf.as_chunks::<8>();
        let entries: Arc<[u64]> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        self.keep((layer, offset), Arc::clone(&entries));
        Ok(entries)
    }

    fn lookup(&self, key: Key) -> Option<Arc<[u64]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let slice = kept.slices.get_mut(&key)?;
        slice.used = now;
        Some(Arc::clone(&slice.entries))
    }

    fn keep(&self, key: Key, entries: Arc<[u64]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let used = kept.clock;
        kept.entries += entries.len();
        if let Some(before) = kept.slices.insert(key, Slice { entries, used }) {
            kept.entries -= before.entries.len();
        }
        if kept.entries * 8 > self.budget {
            kept.drop_older_half();
        }
    }
}

impl Kept {
    /// Half at once, so that finding the oldest costs little for each.
    fn drop_older_half(&mut self) {
        let mut times: Vec<u64> = self.slices.values().map(|slice| slice.used).collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let keep_from = *middle;
        self.slices.retain(|_, slice| slice.used >= keep_from);
        self.entries = self.slices.values().map(|slice| slice.entries.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;

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

    #[tokio::test]
    async fn stays_within_its_budget_and_keeps_what_is_used() {
        let (tables, file) = (Tables::new(100 * 512), Counting::default());
        for n in 0..10_000 {
            tables.get(0, &file, 0, 512).await.unwrap();
            let slice = tables.get(0, &file, 512 * (n + 1), 512).await.unwrap();
            assert_eq!(slice.len(), 64);
            assert!(tables.kept.lock().unwrap().entries * 8 <= 100 * 512);
        }
        assert_eq!(file.0.load(Ordering::Relaxed), 10_001, "the slice in use was dropped");
    }
}
