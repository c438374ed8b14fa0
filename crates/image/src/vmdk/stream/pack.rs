//! Grains, packed: what costs time is done here, for itself, on as many threads as there are.

use std::fmt;
use std::sync::OnceLock;

use libdeflater::{CompressionLvl, Compressor, adler32, crc32};

use super::{GRAIN, look};
use crate::vmdk::spec::{self, SECTOR};

/// Bytes of a grain.
const BYTES: usize = GRAIN as usize;
/// Bytes of a marker before its data.
const MARKER: usize = spec::GRAIN_HEADER_LEN as usize;
/// The header of a zlib stream that was made for speed [RFC 1950, 2.2].
const ZLIB: [u8; 2] = [0x78, 0x01];
/// The longest stored block of a deflate stream [RFC 1951, 3.2.4].
const STORED: usize = 65535;
/// A grain that does not compress: two stored blocks.
pub(super) const MOST: usize = MARKER + ZLIB.len() + 2 * 5 + BYTES + 4;
/// A compressed grain is kept if it saves a sector at least.
const WORTH: usize = (MOST.next_multiple_of(SECTOR as usize)) - SECTOR as usize - MARKER;

/// A run of the disk as it stands in the file: a marker and a zlib stream for each grain, each on whole sectors.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedRun {
    guest: u64,
    len: u64,
    bytes: Vec<u8>,
    pub(super) grains: Vec<Grain>,
}

/// One grain of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grain {
    /// Which grain of the run it is.
    pub index: u32,
    /// Its length in the file.
    pub sectors: u32,
}

impl PackedRun {
    /// Where the run starts on the disk.
    pub fn guest(&self) -> u64 {
        self.guest
    }

    /// How much of the disk it covers, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it covers nothing of the disk.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes for the file: none, where the run is zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for PackedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedRun")
            .field("guest", &self.guest)
            .field("len", &self.len)
            .field("packed", &self.bytes.len())
            .field("grains", &self.grains.len())
            .finish()
    }
}

/// Packs grains. Each thread has its own.
pub struct Packer {
    deflate: Compressor,
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// A packer with the fastest compression that compresses.
    pub fn new() -> Self {
        Self {
            // Level 0 only stores. There always is a level 1; the alternative is for the type alone.
            deflate: Compressor::new(CompressionLvl::new(1).unwrap_or_default()),
        }
    }

    /// Packs what the disk holds from `guest` on. Both `guest` and the length are multiples of [`GRAIN`], but for the length at the
    /// disk's end, where the grain is filled up with zeros. Grains of zeros leave nothing.
    pub fn pack(&mut self, guest: u64, bytes: &[u8]) -> PackedRun {
        debug_assert_eq!(guest % GRAIN, 0, "a run starts with a grain");
        let mut run = PackedRun {
            guest,
            len: bytes.len() as u64,
            bytes: Vec::new(),
            grains: Vec::new(),
        };
        let (grains, rest) = bytes.as_chunks::<BYTES>();
        for (index, grain) in grains.iter().enumerate() {
            self.grain(index, grain, &mut run);
        }
        if !rest.is_empty() {
            let mut last = vec![0; BYTES];
            last[..rest.len()].copy_from_slice(rest);
            self.grain(grains.len(), &last, &mut run);
        }
        run
    }

    /// Adds one grain to a run.
    fn grain(&mut self, index: usize, content: &[u8], run: &mut PackedRun) {
        if is_zero(content) {
            return;
        }
        let lba = run.guest / SECTOR + index as u64 * (GRAIN / SECTOR);
        let start = run.bytes.len();
        let out = &mut run.bytes;
        out.extend_from_slice(&lba.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let stream = out.len();
        if !self.deflate(content, out) {
            store(content, out);
        }
        let len = (out.len() - stream) as u32;
        out[start + 8..stream].copy_from_slice(&len.to_le_bytes());
        out.resize(out.len().next_multiple_of(SECTOR as usize), 0);
        let sectors = ((out.len() - start) / SECTOR as usize) as u32;
        run.grains.push(Grain {
            index: index as u32,
            sectors,
        });
    }

    /// Adds the content compressed, if that is likely to be worth it and is.
    fn deflate(&mut self, content: &[u8], out: &mut Vec<u8>) -> bool {
        if !look::compressible(content) {
            return false;
        }
        let start = out.len();
        out.resize(start + WORTH, 0);
        let packed = self.deflate.zlib_compress(content, &mut out[start..]);
        out.truncate(start + packed.as_ref().map_or(0, |len| *len));
        packed.is_ok()
    }
}

/// Adds the content as a zlib stream of stored blocks.
fn store(content: &[u8], out: &mut Vec<u8>) {
    out.reserve(MOST);
    out.extend_from_slice(&ZLIB);
    let blocks = content.len().div_ceil(STORED);
    for (number, block) in content.chunks(STORED).enumerate() {
        let len = block.len() as u16;
        out.push(u8::from(number + 1 == blocks));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&adler32(content).to_be_bytes());
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    let zero = |word: &[u8; 64]| word.iter().fold(0, |all, byte| all | byte) == 0;
    words.iter().all(zero) && rest.iter().all(|byte| *byte == 0)
}

/// How this process packs, recognised by what it makes of a known disk: another version of libdeflate that packs otherwise
/// shows, whatever it calls itself.
pub(super) fn encoder() -> u32 {
    static ENCODER: OnceLock<u32> = OnceLock::new();
    *ENCODER.get_or_init(|| crc32(Packer::new().pack(0, &sample()).bytes()))
}

/// Grains of every kind between text and dice.
fn sample() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(5 * BYTES);
    while bytes.len() < 5 * BYTES {
        let (word, kind) = (next(), bytes.len() / BYTES);
        let mask = [
            0x0303_0303_0303_0303,
            0x3f3f_3f3f_3f3f_3f3f,
            0x7fff_7fff_7fff_7fff,
            0xffff,
            u64::MAX,
        ][kind];
        // A word from further back, now and then: something for the match finder.
        let back = (word >> 40) as usize % bytes.len().max(1);
        match bytes.get(back..back + 24) {
            Some(seen) if word % 3 == 0 => bytes.extend_from_within(back..back + seen.len()),
            _ => bytes.extend_from_slice(&(word & mask).to_le_bytes()),
        }
    }
    bytes.truncate(5 * BYTES);
    bytes
}
