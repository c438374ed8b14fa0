//! streamOptimized VMDK files: grains are packed side by side, and put into the file in order.

use std::cell::RefCell;
use std::sync::Arc;

use futures::TryStreamExt as _;
use vmferry_block::Buf;
use vmferry_image::vmdk::stream::{Adapter, GRAIN, PackedRun, Packer, Writer};

use super::digest::{Feed, Hasher};
use super::progress::Progress;
use super::read::{self, CHUNK};
use super::target::Target;
use super::{Copied, Job};
use crate::exit::Failure;

thread_local! {
    /// Each thread packs with its own.
    static PACKER: RefCell<Packer> = RefCell::new(Packer::new());
}

/// Copies the disk into the file.
pub async fn copy(job: &Job, target: &Target) -> Result<Copied, Failure> {
    let capacity = job.image.capacity();
    let map = job.map.align(GRAIN);
    let hasher = Hasher::start(capacity, job.sha256)?;
    let progress = Progress::new("copying", map.data_bytes());
    let mut writer = Writer::new(capacity, Adapter::default()).map_err(Failure::failed)?;
    let mut out = Out::new(target, &hasher);
    writer.start(&mut out.bytes);
    let places: Vec<_> = map.extents().to_vec();
    let places = places
        .into_iter()
        .flat_map(|extent| read::cut(extent.start, extent.end()));
    let image = Arc::clone(&job.image);
    let runs = read::ordered(places, read::pool(), move |(guest, len), mut buf: Buf| {
        let image = Arc::clone(&image);
        async move {
            buf.set_len(len as usize);
            let buf = Arc::new(read::read(&image, guest, buf).await?);
            let content = Arc::clone(&buf);
            let run = tokio::task::block_in_place(|| PACKER.with_borrow_mut(|packer| packer.pack(guest, &buf)));
            Ok((run, content))
        }
    });
    let mut runs = std::pin::pin!(runs);
    while let Some((run, buf)) = runs.try_next().await? {
        let run: PackedRun = run;
        let guest = run.guest();
        hasher.feed(Feed::Content { guest, buf }).await?;
        writer.append(&run, &mut out.bytes).map_err(Failure::failed)?;
        progress.add(run.len());
        out.flush(CHUNK as usize).await?;
    }
    writer.finish(&mut out.bytes).map_err(Failure::failed)?;
    out.flush(1).await?;
    let len = out.len;
    Ok(Copied {
        len,
        digests: hasher.finish().await?,
    })
}

/// Bytes on their way to the file.
struct Out<'a> {
    target: &'a Target,
    hasher: &'a Hasher,
    bytes: Vec<u8>,
    /// How many are in the file.
    len: u64,
}

impl<'a> Out<'a> {
    fn new(target: &'a Target, hasher: &'a Hasher) -> Self {
        Self {
            target,
            hasher,
            bytes: Vec::new(),
            len: 0,
        }
    }

    /// Writes whole chunks, and what is left where it has `least` bytes or more.
    async fn flush(&mut self, least: usize) -> Result<(), Failure> {
        while self.bytes.len() >= least {
            let now = self.bytes.len().min(CHUNK as usize);
            let buf = Arc::new(Buf::copy_of(&self.bytes[..now]));
            self.bytes.drain(..now);
            let written = self.target.file.write_at(self.len, Arc::clone(&buf)).await;
            written.map_err(|error| self.target.failure(&error))?;
            self.len += now as u64;
            let spans = Vec::new();
            self.hasher.feed(Feed::File { buf, spans }).await?;
        }
        Ok(())
    }
}
