//! The qcow2 file: version 3, 64 KiB clusters, 16-bit reference counts, everything in its place from the start.
//!
//! In order: header, refcount table, refcount blocks, L1 table, the L2 tables that have an entry, and the data clusters
//! in guest order. Every cluster is used exactly once, so the refcount of each is 1. Spec: QEMU's
//! `docs/interop/qcow2.txt`.

use vmferry_block::AllocationMap;

use super::Piece;
use super::runs::Runs;
use crate::qcow2::spec;

const CLUSTER_BITS: u32 = 16;
/// Bytes of a cluster.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table that fills a cluster: L2, or a cluster of the L1 or of the refcount table.
const ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one refcount block counts.
const COUNTS: u64 = CLUSTER / 2;
/// QEMU opens L1 tables of up to 32 MiB.
pub(super) const MAX_SIZE: u64 = (32 << 20) / 8 * ENTRIES * CLUSTER;

#[derive(Debug, Clone)]
pub(super) struct Qcow2 {
    virtual_size: u64,
    /// Bytes of the disk that is read; the cluster in which it ends is padded.
    capacity: u64,
    /// Guest clusters that are data.
    data: Runs,
    /// L1 entries that have an L2 table.
    tables: Runs,
    /// First cluster of each section, in the order of the file.
    first: Sections,
}

/// First cluster of each section; the header is at 0.
#[derive(Debug, Clone, Copy)]
struct Sections {
    refcount_table: u64,
    refcount_blocks: u64,
    l1: u64,
    l2: u64,
    data: u64,
    end: u64,
}

impl Qcow2 {
    pub(super) fn new(map: &AllocationMap, virtual_size: u64) -> Self {
        let extents = || map.extents().iter().map(|extent| extent.start..extent.end());
        let data = Runs::of(extents(), CLUSTER);
        let tables = Runs::of(extents(), CLUSTER * ENTRIES);
        let l1 = l1_entries(virtual_size).div_ceil(ENTRIES).max(1);
        let first = Sections::new(l1, tables.count(), data.count());
        Self {
            virtual_size,
            capacity: map.capacity(),
            data,
            tables,
            first,
        }
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    pub(super) fn len(&self) -> u64 {
        self.first.end * CLUSTER
    }

    pub(super) fn runs(&self) -> &Runs {
        &self.data
    }

    pub(super) fn guest_before(&self, file_offset: u64) -> u64 {
        let into = file_offset.saturating_sub(self.first.data * CLUSTER);
        match self.data.nth(into / CLUSTER) {
            Some((cluster, _)) => (cluster * CLUSTER + into % CLUSTER).min(self.virtual_size),
            None => self.virtual_size,
        }
    }

    pub(super) fn file_offset(&self, guest: u64) -> Option<(u64, u64)> {
        let within = guest % CLUSTER;
        let (rank, run) = self.data.rank(guest / CLUSTER)?;
        Some(((self.first.data + rank) * CLUSTER + within, run * CLUSTER - within))
    }

    /// The piece that starts at `at` and ends at `end` at the latest.
    pub(super) fn piece(&self, at: u64, end: u64) -> Piece {
        let cluster = at / CLUSTER;
        match cluster
            .checked_sub(self.first.data)
            .and_then(|rank| self.data.nth(rank))
        {
            Some((guest, run)) => self.data_piece(at, end, guest, run),
            None => self.meta_piece(at, end, cluster),
        }
    }

    /// A piece of the run of `run` data clusters that starts in guest cluster `cluster`.
    fn data_piece(&self, at: u64, end: u64, cluster: u64, run: u64) -> Piece {
        let within = at % CLUSTER;
        let guest = cluster * CLUSTER + within;
        let len = (run * CLUSTER - within).min(end - at);
        match self.capacity.checked_sub(guest) {
            Some(left) if left > 0 => Piece::Data {
                offset: at,
                guest,
                len: len.min(left),
            },
            _ => Piece::Zero { offset: at, len },
        }
    }

    fn meta_piece(&self, at: u64, end: u64, cluster: u64) -> Piece {
        let mut bytes = self.meta_cluster(cluster);
        bytes.resize(CLUSTER as usize, 0);
        bytes.truncate((end - cluster * CLUSTER).min(CLUSTER) as usize);
        bytes.drain(..(at % CLUSTER) as usize);
        Piece::Meta { offset: at, bytes }
    }

    /// The content of a cluster before the data; what is missing at its end is zeros.
    fn meta_cluster(&self, cluster: u64) -> Vec<u8> {
        let first = &self.first;
        match cluster {
            0 => self.header(),
            _ if cluster < first.refcount_blocks => self.refcount_table(cluster - first.refcount_table),
            _ if cluster < first.l1 => self.refcount_block(cluster - first.refcount_blocks),
            _ if cluster < first.l2 => self.l1_cluster(cluster - first.l1),
            _ => self.l2_table(cluster - first.l2),
        }
    }

    /// [Header], version 3, without backing file and without extensions.
    fn header(&self) -> Vec<u8> {
        let first = &self.first;
        let mut header = Vec::with_capacity(CLUSTER as usize);
        let mut put = |bytes: &[u8]| header.extend_from_slice(bytes);
        put(&spec::MAGIC.to_be_bytes());
        put(&3u32.to_be_bytes());
        put(&[0; 12]); // backing file offset and size
        put(&CLUSTER_BITS.to_be_bytes());
        put(&self.virtual_size.to_be_bytes());
        put(&[0; 4]); // encryption method
        put(&(l1_entries(self.virtual_size) as u32).to_be_bytes());
        put(&(first.l1 * CLUSTER).to_be_bytes());
        put(&(first.refcount_table * CLUSTER).to_be_bytes());
        put(&((first.refcount_blocks - first.refcount_table) as u32).to_be_bytes());
        put(&[0; 12]); // number of snapshots and offset of their table
        put(&[0; 24]); // incompatible, compatible and auto-clear features
        put(&4u32.to_be_bytes()); // reference counts of 1 << 4 bits
        put(&spec::V3_HEADER_LEN.to_be_bytes());
        header
    }

    /// [Host cluster management]: where the refcount blocks are.
    fn refcount_table(&self, index: u64) -> Vec<u8> {
        let blocks = self.first.l1 - self.first.refcount_blocks;
        table(
            (index * ENTRIES..blocks.min((index + 1) * ENTRIES))
                .map(|block| (self.first.refcount_blocks + block) * CLUSTER),
        )
    }

    /// Every cluster of the file is used once.
    fn refcount_block(&self, index: u64) -> Vec<u8> {
        let counted = self.first.end.saturating_sub(index * COUNTS).min(COUNTS);
        [0, 1].repeat(counted as usize)
    }

    /// [L1 table entry].
    fn l1_cluster(&self, index: u64) -> Vec<u8> {
        let entries = index * ENTRIES..(index + 1) * ENTRIES;
        scatter(&self.tables, entries, self.first.l2)
    }

    /// [Standard Cluster Descriptor], for the L2 table of this rank.
    fn l2_table(&self, rank: u64) -> Vec<u8> {
        let index = self.tables.nth(rank).map_or(0, |(index, _)| index);
        scatter(&self.data, index * ENTRIES..(index + 1) * ENTRIES, self.first.data)
    }
}

impl Sections {
    /// The refcount structures count themselves, so their size is grown until it is enough.
    fn new(l1: u64, l2: u64, data: u64) -> Self {
        let (mut blocks, mut table) = (1, 1);
        loop {
            let end = 1 + table + blocks + l1 + l2 + data;
            let (need_blocks, need_table) = (end.div_ceil(COUNTS), blocks.div_ceil(ENTRIES));
            if need_blocks <= blocks && need_table <= table {
                break;
            }
            (blocks, table) = (need_blocks.max(blocks), need_table.max(table));
        }
        let refcount_blocks = 1 + table;
        let l1_first = refcount_blocks + blocks;
        Self {
            refcount_table: 1,
            refcount_blocks,
            l1: l1_first,
            l2: l1_first + l1,
            data: l1_first + l1 + l2,
            end: l1_first + l1 + l2 + data,
        }
    }
}

/// How many L1 entries a disk of this size has.
fn l1_entries(virtual_size: u64) -> u64 {
    virtual_size.div_ceil(CLUSTER * ENTRIES)
}

/// The big-endian bytes of a table.
fn table(entries: impl Iterator<Item = u64>) -> Vec<u8> {
    entries.flat_map(u64::to_be_bytes).collect()
}

/// A window of a table whose entries point to clusters that lie in a row from `first`, one for each number in `set`.
fn scatter(set: &Runs, window: std::ops::Range<u64>, first: u64) -> Vec<u8> {
    let mut bytes = vec![0; CLUSTER as usize];
    let (slots, _) = bytes.as_chunks_mut::<8>();
    for (run, rank) in set.from(window.start).take_while(|(run, _)| run.start < window.end) {
        let start = run.start.max(window.start);
        let mut host = (first + rank + (start - run.start)) * CLUSTER;
        for number in start..run.end.min(window.end) {
            slots[(number - window.start) as usize] = (host | spec::COPIED).to_be_bytes();
            host += CLUSTER;
        }
    }
    bytes
}
