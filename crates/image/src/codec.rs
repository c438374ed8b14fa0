//! How compressed clusters and grains are unpacked.

use std::io::{self, Read as _};

use flate2::{Decompress, FlushDecompress};
use libdeflater::Decompressor;

use crate::place::{Packed, SECTOR};
use crate::vmdk::spec::GRAIN_HEADER_LEN;

/// The largest window that a zstd frame may ask for: 16 MiB, as the largest cluster has 2 MiB.
const ZSTD_WINDOW_LOG: u32 = 24;

/// The compression of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Deflate without a zlib frame, as in qcow2.
    Deflate,
    /// A zstd frame.
    Zstd,
    /// A VMDK grain: deflate in a zlib frame.
    Grain {
        /// Whether a marker stands before it.
        marked: bool,
        /// Guest offset at which its extent starts: the sector in the marker counts from there.
        first: u64,
        /// Bytes of a whole grain.
        grain: u64,
    },
}

impl Codec {
    /// The name, as users know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deflate | Self::Grain { .. } => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// Fills `out` with the content of `packed` from its compressed bytes. What follows them in `bytes` is ignored: the place of a compressed
    /// cluster says only how many they are at most.
    pub(crate) fn unpack(self, packed: Packed, bytes: &[u8], out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Deflate => deflate(bytes, out),
            Self::Zstd => zstd(bytes, out),
            Self::Grain { marked, first, grain } => {
                let sector = (packed.guest - first) / SECTOR;
                let bytes = if marked { behind_marker(bytes, sector)? } else { bytes };
                zlib(bytes, grain as usize, out)
            }
        }
    }
}

/// The fast way is libdeflate, which wants the end of the stream. QEMU takes a stream that goes on after a whole cluster, and
/// so does the slow way.
fn deflate(bytes: &[u8], out: &mut [u8]) -> io::Result<()> {
    if Decompressor::new().deflate_decompress(bytes, out) == Ok(out.len()) {
        return Ok(());
    }
    let mut inflate = Decompress::new(false);
    inflate
        .decompress(bytes, out, FlushDecompress::Finish)
        .map_err(io::Error::other)?;
    whole(inflate.total_out() as usize, out)
}

fn zstd(bytes: &[u8], out: &mut [u8]) -> io::Result<()> {
    let mut frame = zstd::stream::read::Decoder::with_buffer(bytes)?;
    frame.window_log_max(ZSTD_WINDOW_LOG)?;
    frame.read_exact(out)
}

/// Of the last grain of an extent only the start may be on the disk; the writer chose whether the rest is there.
fn zlib(bytes: &[u8], grain: usize, out: &mut [u8]) -> io::Result<()> {
    let mut inflate = Decompressor::new();
    if out.len() == grain {
        let got = inflate.zlib_decompress(bytes, out).map_err(io::Error::other)?;
        return whole(got, out);
    }
    let mut all = vec![0; grain];
    let got = inflate.zlib_decompress(bytes, &mut all).map_err(io::Error::other)?;
    match all.get(..out.len()) {
        Some(start) if got >= out.len() => out.copy_from_slice(start),
        _ => whole(got, out)?,
    }
    Ok(())
}

fn whole(got: usize, out: &[u8]) -> io::Result<()> {
    if got == out.len() {
        return Ok(());
    }
    Err(io::Error::other(format!("{got} of {} bytes", out.len())))
}

/// The compressed bytes after a grain's marker.
fn behind_marker(bytes: &[u8], sector: u64) -> io::Result<&[u8]> {
    let cut_off = || io::Error::other("it is cut off");
    let (lba, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let (len, _) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let (lba, len) = (u64::from_le_bytes(*lba), u64::from(u32::from_le_bytes(*len)));
    if lba != sector {
        let detail = format!("its marker says that it is sector {lba} of the disk and not {sector}");
        return Err(io::Error::other(detail));
    }
    let start = GRAIN_HEADER_LEN as usize;
    let rest = bytes.get(start..start.saturating_add(len as usize));
    rest.ok_or_else(|| io::Error::other(format!("its marker says that it has {len} bytes")))
}
