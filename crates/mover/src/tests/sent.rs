//! Disks that are sent front to back, once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt as _;
use vmferry_block::Buf;
use vmferry_image::ImageFormat::Vmdk;
use vmferry_provider::DiskStream;
use vmferry_staging::StagingStore;

use super::support::*;
use crate::export::{Tuning, stream_tuned};
use crate::{Error, Progress, Report};

/// A file that is sent, in pieces as the network has them.
#[derive(Clone, Default)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// Of the disk.
    pub(super) capacity: u64,
    /// The most bytes that it may have, where its capacity does not tell.
    pub(super) most: Option<u64>,
    /// How it ends.
    pub(super) finish: Option<vmferry_provider::Kind>,
    /// How much of it was.
    pub(super) at: usize,
}

impl Sent {
    pub(super) fn new(bytes: &[u8], capacity: u64) -> Self {
        Self {
            bytes: bytes.to_vec(),
            capacity,
            ..Self::default()
        }
    }
}

#[async_trait]
impl DiskStream for Sent {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn most(&self) -> u64 {
        self.most.unwrap_or(self.capacity + MIB)
    }

    async fn read(&mut self, mut buf: Buf) -> Result<Buf, vmferry_provider::Error> {
        let len = buf.len().min(self.bytes.len() - self.at);
        buf.set_len(len);
        buf.copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(buf)
    }

    async fn finish(self: Box<Self>) -> Result<(), vmferry_provider::Error> {
        match self.finish {
            Some(kind) => Err(vmferry_provider::Error::new(kind, "finish", "the stream")),
            None => Ok(()),
        }
    }
}

/// A disk, and the streamOptimized VMDK that QEMU makes of it.
pub(super) fn made(lab: &Lab, capacity: u64, extents: &[(u64, u64)]) -> (PathBuf, Vec<u8>) {
    let raw = lab.disk("disk.raw", capacity, extents, 1);
    let vmdk = lab.path("disk.vmdk");
    let [from, to] = [&raw, &vmdk].map(|path| path.to_str().unwrap());
    let arguments = "convert -f raw -O vmdk -o subformat=streamOptimized";
    let arguments: Vec<_> = arguments.split(' ').chain([from, to]).collect();
    qemu_img(&arguments);
    (raw, std::fs::read(vmdk).unwrap())
}

/// Exports what `make` gives each time that the stream is opened; says how often it was.
pub(super) async fn export_of(
    store: &dyn StagingStore,
    make: impl Fn(usize) -> Sent + Send + Sync,
    tuning: Tuning,
) -> (usize, Result<Report, Error>) {
    let opened = AtomicUsize::new(0);
    let open = || {
        let stream = make(opened.fetch_add(1, Ordering::SeqCst));
        async move { Ok(Box::new(stream) as Box<dyn DiskStream>) }.boxed()
    };
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let report = stream_tuned(&open, store, &spec(Vmdk, "frozen-1"), &progress, &cancel, tuning).await;
    (opened.into_inner(), report)
}
