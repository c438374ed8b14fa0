//! The raw file: the disk, byte for byte.

use vmferry_block::AllocationMap;

use super::Piece;
use super::runs::Runs;

#[derive(Debug, Clone)]
pub(super) struct Raw {
    /// Bytes that are data.
    data: Runs,
    len: u64,
}

impl Raw {
    pub(super) fn new(map: &AllocationMap, len: u64) -> Self {
        let data = Runs::of(map.extents().iter().map(|extent| extent.start..extent.end()), 1);
        Self { data, len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn runs(&self) -> &Runs {
        &self.data
    }

    pub(super) fn file_offset(&self, guest: u64) -> Option<(u64, u64)> {
        self.data.rank(guest).map(|(_, run)| (guest, run))
    }

    /// The piece that starts at `at` and ends at `end` at the latest.
    pub(super) fn piece(&self, at: u64, end: u64) -> Piece {
        match self.data.from(at).next() {
            Some((run, _)) if run.contains(&at) => Piece::Data {
                offset: at,
                guest: at,
                len: run.end.min(end) - at,
            },
            Some((run, _)) => Piece::Zero {
                offset: at,
                len: run.start.min(end) - at,
            },
            None => Piece::Zero {
                offset: at,
                len: end - at,
            },
        }
    }
}
