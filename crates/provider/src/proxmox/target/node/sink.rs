//! A staged file that flows to the node while it is written.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use vmferry_block::{Buf, Digest};

use super::super::files::COPYING;
use super::super::place::Place;
use super::script::Disk;
use crate::proxmox::Proxmox;
use crate::proxmox::ssh::Feed;
use crate::{DiskSink, Error, Kind};

/// Opens a place for a file of `len` bytes, whatever was there before.
pub(in super::super) async fn open(
    proxmox: &Proxmox,
    place: &Place,
    len: u64,
    checksum: Option<Digest>,
) -> Result<Arc<dyn DiskSink>, Error> {
    let object = place.object();
    let checksum = checksum.map(|checksum| checksum.to_string());
    let checksum = checksum.as_deref().map(|text| text.trim_start_matches("sha256:"));
    let script = Disk::of(place)?.receive(len, checksum);
    let feed = proxmox
        .shell(&place.node)
        .await?
        .feed(&script, "write", &object)
        .await?;
    Ok(Arc::new(Streamed {
        feed,
        object,
        len,
        at: Mutex::new(0),
    }))
}

/// Dropped before it is finished, the node removes what has come.
struct Streamed {
    feed: Feed,
    object: String,
    len: u64,
    at: Mutex<u64>,
}

impl Streamed {
    fn bug(&self, detail: String) -> Error {
        Error::new(Kind::Bug, "write", &self.object).detail(detail)
    }
}

#[async_trait]
impl DiskSink for Streamed {
    fn concurrency(&self) -> usize {
        1
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        let mut at = self.at.lock().await;
        if offset != *at || buf.len() as u64 > self.len - *at {
            let detail = format!("{} bytes at {offset} after {} of {}", buf.len(), *at, self.len);
            return Err(self.bug(detail));
        }
        *at += buf.len() as u64;
        self.feed.write(Bytes::from_owner(buf)).await
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        let at = *self.at.lock().await;
        if len != self.len || at != len {
            return Err(self.bug(format!("{at} of {} bytes came, and {len} are said to be all", self.len)));
        }
        // The node reads the file once more, for its checksum.
        self.feed.finish(COPYING).await.map(drop)
    }
}
