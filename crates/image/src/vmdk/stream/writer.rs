//! The file, in order.

use serde::{Deserialize, Serialize};
use vmferry_block::AllocationMap;
use vmferry_fault::Fault;

use super::header::Header;
use super::{Adapter, GRAIN, PackedRun, descriptor, pack, sectors, state};
use crate::vmdk::spec::{self, SECTOR};
use crate::{Error, Kind};

/// The largest disk: 62 TiB, as in vSphere.
pub const MAX_CAPACITY: u64 = 62 << 40;
/// Where the last table of a file may start: 2 TiB, because tables name sectors by 32 bits.
pub const MAX_FILE: u64 = SECTOR << 32;

/// Sectors before the first grain, as VMware's own files have them.
const OVERHEAD: u64 = 128;
/// Sectors for the descriptor.
const DESCRIPTOR: u64 = 20;
/// Entries of a grain table, bytes of the disk that it covers, and its sectors in the file.
const ENTRIES: u64 = spec::TABLE_ENTRIES as u64;
const COVERED: u64 = ENTRIES * GRAIN;
const TABLE: u64 = ENTRIES * 4 / SECTOR;
/// Changes when the same content is packed or placed differently.
const VERSION: u32 = 1;

/// Puts packed runs into a file, from its first byte to its last: a state machine without I/O.
///
/// After an error the file cannot be finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    capacity: u64,
    adapter: Adapter,
    stage: Stage,
    /// Bytes of the file so far.
    len: u64,
    /// The first byte of the disk that was not covered by a run.
    next: u64,
    /// Where each grain table starts in the file, in sectors.
    directory: Vec<u32>,
    /// Where each grain of the current table starts.
    table: Vec<u32>,
    /// Which table is the current one; it has no grain yet where `table` is zeros.
    current: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Fresh,
    Started,
    Finished,
}

/// A [`Writer`] between two runs, for a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterState {
    fingerprint: String,
    capacity: u64,
    adapter: Adapter,
    stage: Stage,
    len: u64,
    next: u64,
    current: u64,
    directory: String,
    table: String,
}

impl Writer {
    /// A file for a disk of `capacity` bytes, which are whole sectors of 512.
    ///
    /// [`Unsupported`](Kind::Unsupported) for an empty disk and one larger than [`MAX_CAPACITY`].
    pub fn new(capacity: u64, adapter: Adapter) -> Result<Self, Error> {
        if capacity == 0 || capacity > MAX_CAPACITY || !capacity.is_multiple_of(SECTOR) {
            return Err(Fault::new(Kind::Unsupported, "write", object(capacity))
                .detail("a VMDK has whole sectors of 512 bytes, at least one and at most 62 TiB")
                .remedy("choose another format for the disk"));
        }
        Ok(Self {
            capacity,
            adapter,
            stage: Stage::Fresh,
            len: 0,
            next: 0,
            directory: vec![0; capacity.div_ceil(COVERED) as usize],
            table: vec![0; ENTRIES as usize],
            current: 0,
        })
    }

    /// The most bytes that the file of a disk of `capacity` bytes with this map can have: no grain compresses, and none is
    /// zeros.
    pub fn most(capacity: u64, map: &AllocationMap) -> u64 {
        let (mut grains, mut tables, mut last) = (0, 0, None);
        for extent in map.align(GRAIN).extents() {
            grains += extent.len.div_ceil(GRAIN);
            let (first, end) = (extent.start / COVERED, (extent.end() - 1) / COVERED);
            tables += end + 1 - first - u64::from(last == Some(first));
            last = Some(end);
        }
        let directory = sectors(capacity.div_ceil(COVERED) * 4);
        let all = OVERHEAD + grains * sectors(pack::MOST as u64) + tables * (1 + TABLE) + 1 + directory + 3;
        all * SECTOR
    }

    /// What has to be equal for a file to be continued: format, disk, and how grains are packed.
    pub fn fingerprint(&self) -> String {
        let Self { capacity, adapter, .. } = self;
        let packed = pack::encoder();
        format!("streamOptimized/{VERSION} {capacity} {adapter} deflate-{packed:08x}")
    }

    /// Bytes of the file so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte of the disk that was not covered by a run yet.
    pub fn next_guest(&self) -> u64 {
        self.next
    }

    /// The disk's capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Adds what comes before the first grain: 64 KiB. Does nothing when called again.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.stage != Stage::Fresh {
            return;
        }
        self.stage = Stage::Started;
        let text = descriptor::render(self.capacity / SECTOR, self.adapter);
        self.put(&self.header(spec::DIRECTORY_AT_END).encode(), out);
        self.put(text.as_bytes(), out);
        self.put(&vec![0; (OVERHEAD * SECTOR - self.len) as usize], out);
    }

    /// Adds a run, and the grain tables that are complete with it. Runs come in ascending order of the disk, and may leave
    /// out what is zeros.
    ///
    /// [`Unsupported`](Kind::Unsupported) where the file grows past 2 TiB; [`Bug`](Kind::Bug) for a run out of order.
    pub fn append(&mut self, run: &PackedRun, out: &mut Vec<u8>) -> Result<(), Error> {
        let end = run.guest() + run.len();
        if self.stage != Stage::Started || run.guest() < self.next || end > self.capacity {
            return Err(self.bug(&format!("a run of {} bytes at {}", run.len(), run.guest())));
        }
        let bytes = run.bytes();
        let (mut done, mut at) = (0, 0);
        for grain in &run.grains {
            let number = run.guest() / GRAIN + u64::from(grain.index);
            if number / ENTRIES != self.current {
                out.extend_from_slice(&bytes[done..at]);
                done = at;
                self.close_table(out)?;
                self.current = number / ENTRIES;
            }
            self.table[(number % ENTRIES) as usize] = self.sector()?;
            let len = u64::from(grain.sectors) * SECTOR;
            self.len += len;
            at += len as usize;
        }
        out.extend_from_slice(&bytes[done..]);
        self.next = end.next_multiple_of(GRAIN).min(self.capacity);
        Ok(())
    }

    /// Adds the last grain table, the grain directory, the footer and the end-of-stream marker.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.stage != Stage::Started {
            return Err(self.bug("its end"));
        }
        self.close_table(out)?;
        let directory = table(&self.directory);
        self.put(&marker(sectors(directory.len() as u64), spec::marker::DIRECTORY), out);
        let at = self.len / SECTOR;
        self.put(&directory, out);
        self.put(&marker(1, spec::marker::FOOTER), out);
        self.put(&self.header(at).encode(), out);
        self.put(&marker(0, spec::marker::END), out);
        self.stage = Stage::Finished;
        Ok(())
    }

    /// The state between two runs. It grows with the file's tables: a few bytes for each 32 MiB of the disk that hold data.
    pub fn save(&self) -> WriterState {
        WriterState {
            fingerprint: self.fingerprint(),
            capacity: self.capacity,
            adapter: self.adapter,
            stage: self.stage,
            len: self.len,
            next: self.next,
            current: self.current,
            directory: state::encode(&self.directory),
            table: state::encode(&self.table),
        }
    }

    /// Takes a writer up again. Nothing, where the state is damaged or its file was begun by something that packs
    /// otherwise: it must be written from the front again.
    pub fn restore(state: &WriterState) -> Option<Self> {
        let mut writer = Self::new(state.capacity, state.adapter).ok()?;
        let tables = writer.directory.len();
        writer.directory = state::decode(&state.directory, tables)?;
        writer.table = state::decode(&state.table, ENTRIES as usize)?;
        (writer.stage, writer.len, writer.next, writer.current) = (state.stage, state.len, state.next, state.current);
        let sound = state.fingerprint == writer.fingerprint()
            && writer.current < tables as u64
            && writer.next <= writer.capacity
            && writer.len.is_multiple_of(SECTOR)
            && writer.len <= 2 * MAX_FILE
            && (writer.stage == Stage::Fresh) == (writer.len == 0);
        sound.then_some(writer)
    }

    /// Writes the current grain table, if it has a grain.
    fn close_table(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        self.put(&marker(TABLE, spec::marker::TABLE), out);
        self.directory[self.current as usize] = self.sector()?;
        self.put(&table(&self.table), out);
        self.table.fill(0);
        Ok(())
    }

    /// Adds bytes, and fills up the sector.
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let whole = bytes.len().next_multiple_of(SECTOR as usize);
        out.extend_from_slice(bytes);
        out.resize(out.len() + whole - bytes.len(), 0);
        self.len += whole as u64;
    }

    /// The sector that comes next.
    fn sector(&self) -> Result<u32, Error> {
        u32::try_from(self.len / SECTOR).map_err(|_| {
            Fault::new(Kind::Unsupported, "write", object(self.capacity))
                .detail(format!(
                    "its data do not fit: a streamOptimized file has at most 2 TiB, and that was full at byte {} of the disk",
                    self.current * COVERED
                ))
                .remedy("choose another format, or split the disk's data over several disks")
        })
    }

    fn header(&self, directory: u64) -> Header {
        Header {
            capacity: self.capacity / SECTOR,
            grain: GRAIN / SECTOR,
            descriptor: 1,
            descriptor_len: DESCRIPTOR,
            directory,
            overhead: OVERHEAD,
        }
    }

    fn bug(&self, what: &str) -> Error {
        Fault::new(Kind::Bug, "write", object(self.capacity)).detail(format!(
            "{what} came while the file was {:?} and the disk done up to {}",
            self.stage, self.next
        ))
    }
}

fn object(capacity: u64) -> String {
    format!("a streamOptimized VMDK of a disk of {capacity} bytes")
}

/// The sector before a table, a footer or the end [Metadata marker].
fn marker(sectors: u64, kind: u32) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..16].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// The little-endian bytes of a table.
fn table(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}
