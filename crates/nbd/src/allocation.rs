//! Which parts of an export hold data (`NBD_CMD_BLOCK_STATUS`).

use futures::{StreamExt, TryStreamExt, stream};
use vmferry_block::AllocationMap;

use crate::error::breach;
use crate::wire::STATE_ZERO;
use crate::{Client, Error};

/// How much of the export is asked about at once, in bytes.
const WINDOW: u64 = 1 << 31;

/// How many questions are under way at once: a large disk far away would else be a long chain of round trips.
const AT_ONCE: usize = 4;

impl Client {
    /// Which parts hold data. Everything, where the server cannot tell.
    pub async fn allocation(&self) -> Result<AllocationMap, Error> {
        let size = self.size();
        if self.export().allocation.is_none() {
            return Ok(AllocationMap::full(size));
        }
        let windows = (0..size.div_ceil(WINDOW)).map(|at| (at * WINDOW, size.min((at + 1) * WINDOW)));
        let mut parts = stream::iter(windows)
            .map(|(start, end)| self.window(start, end))
            .buffered(AT_ONCE);
        let mut map = AllocationMap::builder(size);
        while let Some(part) = parts.try_next().await? {
            for extent in part.extents() {
                map.data(extent.start, extent.len)
                    .or_else(|error| breach(error.to_string()))?;
            }
        }
        Ok(map.build())
    }

    /// The data from `start` to `end`.
    async fn window(&self, start: u64, end: u64) -> Result<AllocationMap, Error> {
        let mut map = AllocationMap::builder(end);
        let mut at = start;
        while at < end {
            for (len, flags) in self.status(at, (end - at) as u32).await? {
                let len = u64::from(len).min(end - at);
                if len == 0 {
                    // Only the last extent may reach past what was asked for.
                    if at < end {
                        return breach(format!("an extent of no bytes at {at}"));
                    }
                    break;
                }
                if flags & STATE_ZERO == 0 {
                    map.data(at, len).or_else(|error| breach(error.to_string()))?;
                }
                at += len;
            }
        }
        Ok(map.build())
    }
}
