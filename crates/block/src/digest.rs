//! Recognising bytes again: the staged object's SHA-256, and the content digest of a disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A SHA-256 value, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// A text that is not `sha256:` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hex digits>")]
pub struct ParseDigestError(String);

impl Digest {
    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, ParseDigestError> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let bytes = text
            .strip_prefix("sha256:")
            .and_then(unhex)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| ParseDigestError(text.to_owned()))
    }
}

/// SHA-256 of a stream whose state can be written down and taken up again by another process.
#[derive(Clone, Default)]
pub struct ObjectHash {
    sha: Sha256,
    len: u64,
}

/// A written-down [`ObjectHash`]: everything that was hashed up to `len`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    /// Bytes hashed so far.
    pub len: u64,
    state: String,
}

impl ObjectHash {
    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Bytes hashed so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was hashed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The state, to go on from later.
    pub fn save(&self) -> ObjectState {
        ObjectState {
            len: self.len,
            state: hex(&self.sha.serialize()),
        }
    }

    /// Takes up a saved state; `None` where it is not one.
    pub fn restore(saved: &ObjectState) -> Option<Self> {
        let bytes = unhex(&saved.state)?;
        let state = SerializedState::<Sha256>::try_from(bytes.as_slice()).ok()?;
        Some(Self {
            sha: Sha256::deserialize(&state).ok()?,
            len: saved.len,
        })
    }

    /// The digest of everything hashed.
    pub fn finish(self) -> Digest {
        Digest(self.sha.finalize().into())
    }
}

/// Size of a leaf of the content digest, in bytes.
pub const LEAF: u64 = 1 << 20;

/// The content digest of a disk: the same for the same content, whatever image format or extent layout holds it.
///
/// The disk is cut into leaves of [`LEAF`] bytes (the last one shorter). The digest is SHA-256 over the text
/// `vmferry-content-v1\n`, the capacity, and, for every leaf that is not all zeros, its index and its BLAKE3 hash (all
/// numbers as 8 bytes, big endian). Zero leaves cost nothing, and it makes no difference whether zeros came as data or
/// as a hole.
#[derive(Clone)]
pub struct ContentDigest {
    capacity: u64,
    root: ObjectHash,
    leaf: blake3::Hasher,
    /// Where the next byte goes; everything before it is settled.
    position: u64,
    /// Whether the current leaf has had any byte other than zero. What came before the first one is not hashed yet.
    dirty: bool,
}

/// A written-down [`ContentDigest`] at a leaf boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentState {
    /// The first byte that is not in it: a multiple of [`LEAF`].
    pub position: u64,
    capacity: u64,
    root: ObjectState,
}

impl ContentDigest {
    /// Starts the digest of a disk of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let mut root = ObjectHash::default();
        root.update(b"vmferry-content-v1\n");
        root.update(&capacity.to_be_bytes());
        Self {
            capacity,
            root,
            leaf: blake3::Hasher::new(),
            position: 0,
            dirty: false,
        }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes data at `offset`, which must not lie before [`position`](Self::position); the gap is zeros. Bytes past the
    /// capacity (the padding of a last cluster) are not part of the disk and are ignored.
    ///
    /// # Panics
    /// If `offset` lies before the position: the caller's order is broken, and any digest would be a lie.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) {
        assert!(
            offset >= self.position,
            "content digest fed out of order: {offset} after {}",
            self.position
        );
        self.zeros_until(offset);
        let room = self.capacity.saturating_sub(offset);
        let mut bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        while !bytes.is_empty() {
            let left = LEAF - self.position % LEAF;
            let (now, later) = bytes.split_at(bytes.len().min(left as usize));
            if self.dirty || !is_zero(now) {
                self.catch_up();
                self.leaf.update(now);
            }
            self.advance(now.len() as u64);
            bytes = later;
        }
    }

    /// The state as of the last settled leaf: what came after it must be fed again.
    pub fn save(&self) -> ContentState {
        let settled = self.position == self.capacity;
        let position = if settled {
            self.capacity
        } else {
            self.position / LEAF * LEAF
        };
        ContentState {
            position,
            capacity: self.capacity,
            root: self.root.save(),
        }
    }

    /// Takes up a saved state; `None` where it is not one.
    pub fn restore(saved: &ContentState) -> Option<Self> {
        let root = ObjectHash::restore(&saved.root)?;
        let digest = Self {
            capacity: saved.capacity,
            root,
            leaf: blake3::Hasher::new(),
            position: saved.position,
            dirty: false,
        };
        (saved.position.is_multiple_of(LEAF) || saved.position == saved.capacity).then_some(digest)
    }

    /// The digest; what was not fed is zeros.
    pub fn finish(mut self) -> Digest {
        self.zeros_until(self.capacity);
        self.root.finish()
    }

    /// Hashes the zeros before the first other byte of a leaf, which is here.
    fn catch_up(&mut self) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut zeros = if self.dirty { 0 } else { (self.position % LEAF) as usize };
        while zeros > 0 {
            let now = zeros.min(ZEROS.len());
            self.leaf.update(&ZEROS[..now]);
            zeros -= now;
        }
        self.dirty = true;
    }

    fn zeros_until(&mut self, end: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let end = end.min(self.capacity);
        while self.position < end {
            let in_leaf = LEAF - self.position % LEAF;
            if self.dirty {
                let n = in_leaf.min(end - self.position).min(ZEROS.len() as u64);
                self.leaf.update(&ZEROS[..n as usize]);
                self.advance(n);
            } else if end - self.position < in_leaf {
                // The leaf may yet get data; its hash then begins with the zeros before it.
                self.advance(end - self.position);
            } else {
                self.advance(in_leaf);
                self.skip_clean_leaves(end);
            }
        }
    }

    /// Whole leaves of zeros up to `end`, in one step.
    fn skip_clean_leaves(&mut self, end: u64) {
        self.position = self.position.max(end / LEAF * LEAF);
    }

    fn advance(&mut self, n: u64) {
        let index = self.position / LEAF;
        self.position += n;
        if self.position.is_multiple_of(LEAF) || self.position == self.capacity {
            if self.dirty {
                self.root.update(&index.to_be_bytes());
                self.root.update(self.leaf.finalize().as_bytes());
            }
            self.leaf.reset();
            self.dirty = false;
        }
    }
}

/// Whether every byte is zero. Data is told from its first bytes; zeros are compared with themselves, which is as fast as
/// memory can be read.
pub fn is_zero(bytes: &[u8]) -> bool {
    const HEAD: usize = 64;
    let (head, rest) = bytes.split_at(bytes.len().min(HEAD));
    head.iter().fold(0, |seen, byte| seen | byte) == 0 && *rest == bytes[..rest.len()]
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            text
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().as_chunks::<2>();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.1.is_empty().then_some(())?;
    digits
        .0
        .iter()
        .map(|[high, low]| Some(value(*high)? << 4 | value(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, straight from the doc comment.
    fn by_definition(disk: &[u8]) -> Digest {
        let mut sha = Sha256::new();
        sha.update(b"vmferry-content-v1\n");
        sha.update((disk.len() as u64).to_be_bytes());
        for (index, leaf) in disk.chunks(LEAF as usize).enumerate() {
            if leaf.iter().any(|byte| *byte != 0) {
                sha.update((index as u64).to_be_bytes());
                sha.update(blake3::hash(leaf).as_bytes());
            }
        }
        Digest(sha.finalize().into())
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = ObjectHash::default().finish();
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("sha256:12".parse::<Digest>().is_err());
    }

    #[test]
    fn an_empty_tebibyte_takes_no_time() {
        let mut digest = ContentDigest::new(1 << 40);
        digest.data((1 << 40) - 5, b"hello");
        digest.finish();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pieces_holes_and_restarts_make_no_difference(
            size in 1usize..4 * LEAF as usize,
            pieces in prop::collection::vec((0usize..1 << 21, 1usize..1 << 20, any::<u8>(), any::<bool>()), 0..8),
        ) {
            let mut disk = vec![0u8; size];
            let mut digest = ContentDigest::new(size as u64);
            let mut at = 0;
            for (gap, len, byte, restart) in pieces {
                let start = (at + gap).min(size);
                let end = (start + len).min(size);
                disk[start..end].fill(byte);
                digest.data(start as u64, &disk[start..end]);
                at = end;
                if restart {
                    let saved = digest.save();
                    digest = ContentDigest::restore(&saved).unwrap();
                    let from = saved.position as usize;
                    digest.data(saved.position, &disk[from..at.max(from)]);
                }
            }
            prop_assert_eq!(digest.finish(), by_definition(&disk));
        }

        #[test]
        fn a_hash_goes_on_after_a_restart(bytes in prop::collection::vec(any::<u8>(), 0..4000), cut in 0usize..4000) {
            let cut = cut.min(bytes.len());
            let mut hash = ObjectHash::default();
            hash.update(&bytes[..cut]);
            let mut hash = ObjectHash::restore(&hash.save()).unwrap();
            hash.update(&bytes[cut..]);
            prop_assert_eq!(hash.finish(), Digest(Sha256::digest(&bytes).into()));
        }
    }
}
