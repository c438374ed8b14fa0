//! When the journal of an import is written.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};
use vmferry_provider::DiskSink;
use vmferry_staging::{ObjectKey, StagingStore};

use super::journal::{Journal, What};
use crate::error::{Error, target};
use crate::hasher::States;

/// How long it may take before it is noted, at the most.
const AFTER: Duration = Duration::from_secs(5);
/// How long the store may take for a note.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes the journal now and then.
pub(super) struct Notes<'a> {
    pub(super) sink: &'a dyn DiskSink,
    pub(super) store: &'a dyn StagingStore,
    pub(super) key: &'a ObjectKey,
    pub(super) what: What,
    /// How much may be read before it is noted.
    pub(super) every: u64,
    /// When the last note was begun, and up to which byte of the object it went.
    pub(super) last: (Instant, u64),
    /// Cleared once the sink says that it cannot keep what was written.
    pub(super) keeps: bool,
}

impl<'a> Notes<'a> {
    /// Whether it is time for a note, now that the object was read up to `end`.
    pub(super) fn due(&self, end: u64) -> bool {
        let (when, from) = self.last;
        self.keeps && end > from && (end - from >= self.every || when.elapsed() >= AFTER)
    }

    /// Makes durable what was written, then notes it. What it notes must have been written before; more may be written
    /// meanwhile. Gives whether the sink can do that at all.
    ///
    /// A note that the store does not take is not worth an error: the next one may be taken.
    pub(super) fn note(&mut self, states: States, written: u64) -> BoxFuture<'a, Result<bool, Error>> {
        self.last = (Instant::now(), states.object.len);
        let journal = Journal::new(self.what.clone(), states, written);
        let (sink, store, key) = (self.sink, self.store, self.key);
        async move {
            let flushed = sink.flush().await.map_err(|error| target(error, "the volume"))?;
            if flushed {
                match timeout(LIMIT, journal.save(store, key)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "an import that breaks off now repeats more than it should");
                    }
                    Err(_) => tracing::warn!(%key, "the store is slow to take the journal of the import"),
                }
            }
            Ok(flushed)
        }
        .boxed()
    }

    /// Heeds what the sink said.
    pub(super) fn noted(&mut self, keeps: bool) {
        self.keeps &= keeps;
    }
}
