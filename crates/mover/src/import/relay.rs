//! Handing the staged object on as it is, to a host that makes a disk of it by itself.

use tokio::sync::mpsc;
use vmferry_provider::DiskSink;

use crate::error::{Error, target};
use crate::hasher::Hashed;
use crate::progress::Progress;

/// The way to such a host.
pub(super) struct Relay<'a> {
    pub(super) sink: &'a dyn DiskSink,
    pub(super) progress: &'a Progress,
}

impl Relay<'_> {
    /// Hands on all that comes out of `hashed`, in order.
    pub(super) async fn run(&mut self, mut hashed: mpsc::Receiver<Hashed>) -> Result<(), Error> {
        while let Some(Hashed { chunk, done, .. }) = hashed.recv().await {
            let written = self.sink.write(chunk.offset, chunk.buf).await;
            // Whoever feeds us sees the closed channel and stops.
            written.map_err(|error| target(error, "the volume"))?;
            self.progress.advance(done);
        }
        Ok(())
    }
}
