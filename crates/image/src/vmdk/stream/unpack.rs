//! Grains, unpacked.

use std::fmt;

use libdeflater::Decompressor;
use vmferry_fault::Fault;

use crate::{Error, Kind};

/// A grain as it stood in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedGrain {
    /// Where it starts on the disk, in bytes.
    pub guest: u64,
    /// Bytes of the disk that it holds: fewer than the others only at the disk's end.
    pub len: u32,
    /// Its zlib stream.
    pub bytes: Vec<u8>,
    /// Bytes that the zlib stream may unpack to.
    pub(super) grain: u32,
}

impl fmt::Debug for PackedGrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedGrain")
            .field("guest", &self.guest)
            .field("len", &self.len)
            .field("packed", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Unpacks grains. Each thread has its own.
pub struct Unpacker {
    inflate: Decompressor,
    /// For the last grain of a disk that ends within it.
    scratch: Vec<u8>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// An unpacker.
    pub fn new() -> Self {
        Self {
            inflate: Decompressor::new(),
            scratch: Vec::new(),
        }
    }

    /// Unpacks a grain to the front of `out`, which has room for [`PackedGrain::len`] bytes, and gives that length.
    ///
    /// [`Corrupt`](Kind::Corrupt) where the stream is damaged, does not match its checksum, or has not the length of the grain.
    pub fn unpack(&mut self, grain: &PackedGrain, out: &mut [u8]) -> Result<usize, Error> {
        let (len, whole) = (grain.len as usize, grain.grain as usize);
        let corrupt = |detail: String| Err(Fault::new(Kind::Corrupt, "unpack", object(grain)).detail(detail));
        let Some(out) = out.get_mut(..len) else {
            return Err(Fault::new(Kind::Bug, "unpack", object(grain)).detail("there is no room for it"));
        };
        let unpacked = if len == whole {
            self.inflate.zlib_decompress(&grain.bytes, out)
        } else {
            self.scratch.resize(whole, 0);
            let unpacked = self.inflate.zlib_decompress(&grain.bytes, &mut self.scratch);
            out.copy_from_slice(&self.scratch[..len]);
            unpacked
        };
        match unpacked {
            Ok(unpacked) if unpacked >= len => Ok(len),
            Ok(unpacked) => corrupt(format!("it has {unpacked} of {len} bytes")),
            Err(error) => corrupt(error.to_string()),
        }
    }
}

fn object(grain: &PackedGrain) -> String {
    format!("the VMDK's grain at byte {} of the disk", grain.guest)
}
