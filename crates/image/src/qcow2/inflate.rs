//! Compressed clusters [Compressed Clusters Descriptor].

use std::io::{self, Read as _};

use flate2::{Decompress, FlushDecompress};

use super::header::Compression;

/// The largest window that a zstd frame may ask for: 16 MiB, as the largest cluster has 2 MiB.
const ZSTD_WINDOW_LOG: u32 = 24;

/// Fills `cluster` from its compressed bytes. What follows them in `packed` is ignored: the descriptor counts in
/// sectors.
pub(crate) fn inflate(compression: Compression, packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    match compression {
        Compression::Deflate => deflated(packed, cluster),
        Compression::Zstd => zstd(packed, cluster),
    }
}

/// Deflate without a zlib header.
fn deflated(packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    let mut inflate = Decompress::new(false);
    inflate
        .decompress(packed, cluster, FlushDecompress::Finish)
        .map_err(io::Error::other)?;
    if inflate.total_out() == cluster.len() as u64 {
        return Ok(());
    }
    let detail = format!("{} of {} bytes", inflate.total_out(), cluster.len());
    Err(io::Error::other(detail))
}

fn zstd(packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    let mut frame = zstd::stream::read::Decoder::with_buffer(packed)?;
    frame.window_log_max(ZSTD_WINDOW_LOG)?;
    frame.read_exact(cluster)
}
