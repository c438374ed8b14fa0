//! The file, decoded as it arrives.

mod seen;
mod tables;

use serde::{Deserialize, Serialize};
use vmferry_fault::Fault;

use self::seen::Seen;
use self::tables::{InFront, Since};
use super::descriptor::Descriptor;
use super::header::{Header, Refusal, u32_at, u64_at};
use super::{PackedGrain, sectors};
use crate::vmdk::spec::{self, SECTOR, marker};
use crate::{Error, Kind};

/// One sector.
type Sector = [u8; SECTOR as usize];

/// What reading a file may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest disk that is read, in bytes. One bit of memory for each of its grains is the most that the reader
    /// takes.
    pub capacity: u64,
}

impl Default for Limits {
    /// 64 TiB.
    fn default() -> Self {
        Self { capacity: 64 << 40 }
    }
}

/// What was learned of a file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The disk's capacity in bytes.
    pub capacity: u64,
    /// How many grains it holds.
    pub grains: u64,
    /// Whether they came in the order of the disk.
    pub ordered: bool,
    /// The disk controller that the descriptor names.
    pub adapter: Option<String>,
    /// Length of the file in bytes, up to its end marker.
    pub len: u64,
    /// Whether there was an end marker. QEMU writes none.
    pub end_marker: bool,
}

/// Decodes a streamOptimized VMDK front to back, whatever the sizes in which its bytes come: a state machine without I/O.
///
/// Grains may come in any order, each once, as QEMU writes them with several tasks (`-W`). A file is whole if its tables in front name
/// as many grains as came, or if it has a footer, or a grain directory and an end marker. An end marker alone proves nothing: a
/// file of which the end was never written has zeros there, which say the same.
/// Grain tables that follow their grains must agree with where the grains were.
///
/// After an error nothing more can be read.
#[derive(Debug)]
pub struct Reader {
    name: String,
    limits: Limits,
    stage: Stage,
    /// Bytes of the file up to the last unit that was complete: header, grain, table.
    at: u64,
    /// The sector, or the table, that is not complete.
    pending: Vec<u8>,
    head: Option<Head>,
    seen: Seen,
    since: Since,
    progress: Progress,
}

/// What the front of the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// In sectors.
    capacity: u64,
    /// In sectors.
    grain: u64,
    adapter: Option<String>,
    /// How many grains the tables in front name.
    expected: Option<u64>,
}

impl Head {
    /// Sectors of the grain directory.
    fn directory(&self) -> u64 {
        let tables = self.capacity.div_ceil(self.grain * u64::from(spec::TABLE_ENTRIES));
        sectors(tables * spec::ENTRY_LEN)
    }
}

/// How far the reader came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a part of the file that came or did not, whatever of the others"
)]
struct Progress {
    grains: u64,
    /// The first sector of the disk after the last grain in order.
    next: u64,
    disorder: bool,
    directory: bool,
    footer: bool,
    end: bool,
}

#[derive(Debug)]
enum Stage {
    Header,
    Front(Box<Front>),
    Marker,
    Grain(Grain),
    /// A grain table of which the last byte did not come.
    Table,
    /// So many bytes of the grain directory are left.
    Directory(u64),
    Footer,
    End,
}

/// Between the header and the first grain.
#[derive(Debug)]
struct Front {
    header: Header,
    /// The sector that comes next.
    sector: u64,
    descriptor: Vec<u8>,
    tables: Option<InFront>,
}

/// A grain of which the last byte did not come.
#[derive(Debug)]
struct Grain {
    /// Its first sector on the disk.
    lba: u64,
    bytes: Vec<u8>,
    /// Bytes of the zlib stream.
    size: usize,
    /// Bytes up to the next sector that are left.
    left: usize,
}

/// A [`Reader`] at the last grain that was complete, for a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderState {
    /// Where in the file to go on.
    pub at: u64,
    head: Option<Head>,
    progress: Progress,
}

impl Reader {
    /// A reader of the file with this name, which is only for messages.
    pub fn new(name: impl Into<String>, limits: Limits) -> Self {
        Self {
            name: name.into(),
            limits,
            stage: Stage::Header,
            at: 0,
            pending: Vec::new(),
            head: None,
            seen: Seen::default(),
            since: Since::new(true),
            progress: Progress::default(),
        }
    }

    /// The disk's capacity in bytes, once the first grain may come.
    pub fn capacity(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.capacity * SECTOR)
    }

    /// Bytes of a grain, once the first one may come.
    pub fn grain(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.grain * SECTOR)
    }

    /// Takes the next bytes of the file, and gives the grains that are complete with them.
    ///
    /// [`Corrupt`](Kind::Corrupt) for a file that contradicts itself, [`Unsupported`](Kind::Unsupported) for one that is not streamOptimized, larger than
    /// the limits, or a part of another disk.
    pub fn push(&mut self, mut bytes: &[u8], grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        while !bytes.is_empty() {
            let took = match &mut self.stage {
                Stage::Grain(grain) => {
                    let took = grain.left.min(bytes.len());
                    let data = (grain.size - grain.bytes.len()).min(took);
                    grain.bytes.extend_from_slice(&bytes[..data]);
                    grain.left -= took;
                    if grain.left == 0 {
                        self.grain_done(grains);
                    }
                    took
                }
                Stage::Directory(left) => {
                    let took = (*left).min(bytes.len() as u64);
                    *left -= took;
                    if *left == 0 {
                        self.stage = Stage::Marker;
                        self.directory();
                    }
                    took as usize
                }
                Stage::End => {
                    self.zeros(bytes)?;
                    bytes.len()
                }
                Stage::Table => self.collect(bytes, (tables::SECTORS * SECTOR) as usize, grains)?,
                _ => self.collect(bytes, SECTOR as usize, grains)?,
            };
            bytes = &bytes[took..];
        }
        Ok(())
    }

    /// The end of the file. [`Corrupt`](Kind::Corrupt) where that is not the end of the disk.
    pub fn finish(self) -> Result<Facts, Error> {
        let Some(head) = &self.head else {
            return Err(self.corrupt("it ends before its first grain"));
        };
        let Progress {
            grains,
            directory,
            footer,
            end,
            ..
        } = self.progress;
        if !matches!(self.stage, Stage::Marker | Stage::End) || !self.pending.is_empty() {
            return Err(self.corrupt("it is cut off"));
        }
        let is_whole = footer || (directory && end);
        match head.expected {
            Some(expected) if expected != grains => {
                return Err(self.corrupt(&format!("it holds {grains} grains, and its tables name {expected}")));
            }
            None if !is_whole => {
                return Err(
                    self.corrupt("it is cut off: there is no footer, and no grain directory with an end marker")
                );
            }
            _ => {}
        }
        Ok(Facts {
            capacity: head.capacity * SECTOR,
            grains,
            ordered: !self.progress.disorder,
            adapter: head.adapter.clone(),
            len: self.at,
            end_marker: end,
        })
    }

    /// The state after the last grain that was given. Who takes it up goes on at [`ReaderState::at`] of the same file.
    pub fn save(&self) -> ReaderState {
        let front = self.head.is_none();
        ReaderState {
            at: if front { 0 } else { self.at },
            head: self.head.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Takes a reader up again; nothing, where the state is damaged. What came before is not known one by one any more: a grain
    /// that comes again is found only if both came since.
    pub fn restore(name: impl Into<String>, limits: Limits, state: &ReaderState) -> Option<Self> {
        let mut reader = Self::new(name, limits);
        let Some(head) = &state.head else {
            return (state.at == 0).then_some(reader);
        };
        let fits =
            head.capacity <= limits.capacity / SECTOR && head.grain.is_power_of_two() && head.grain <= spec::MAX_GRAIN;
        // No number so large that counting on could overflow.
        let Progress { grains, next, .. } = state.progress;
        let counts = state.at <= 1 << 60 && grains <= head.capacity && next <= head.capacity + head.grain;
        if !fits || !counts || !state.at.is_multiple_of(SECTOR) {
            return None;
        }
        reader.stage = if state.progress.end { Stage::End } else { Stage::Marker };
        reader.since = Since::new(false);
        reader.at = state.at;
        reader.head = Some(head.clone());
        reader.progress = state.progress.clone();
        Some(reader)
    }

    /// Gathers `need` bytes, and goes on once they are there.
    fn collect(&mut self, bytes: &[u8], need: usize, grains: &mut Vec<PackedGrain>) -> Result<usize, Error> {
        let took = (need - self.pending.len()).min(bytes.len());
        self.pending.extend_from_slice(&bytes[..took]);
        if self.pending.len() == need {
            let unit = std::mem::take(&mut self.pending);
            self.unit(&unit, grains)?;
            self.pending = unit;
            self.pending.clear();
        }
        Ok(took)
    }

    /// A sector or a table came.
    fn unit(&mut self, unit: &[u8], grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        let mut sector: Sector = [0; SECTOR as usize];
        sector.copy_from_slice(&unit[..SECTOR as usize]);
        match std::mem::replace(&mut self.stage, Stage::Marker) {
            Stage::Header => self.header(&sector),
            Stage::Front(front) => self.front(front, &sector),
            Stage::Footer => self.footer(&sector),
            Stage::Table => self.table(unit),
            _ => self.marker(&sector, grains),
        }
    }

    fn header(&mut self, sector: &Sector) -> Result<(), Error> {
        let header = Header::parse(sector).map_err(|refusal| self.refuse(refusal))?;
        if header.capacity > self.limits.capacity / SECTOR {
            let limit = self.limits.capacity;
            return Err(self.unsupported(&format!(
                "its disk has {} sectors, and {limit} bytes are the most here",
                header.capacity
            )));
        }
        let tables = header.capacity.div_ceil(header.grain * u64::from(spec::TABLE_ENTRIES));
        let in_front = header.directory < header.overhead && header.directory > 0;
        self.stage = Stage::Front(Box::new(Front {
            header,
            sector: 1,
            descriptor: Vec::new(),
            tables: in_front.then(|| InFront::new(header.directory, tables)),
        }));
        self.at = SECTOR;
        Ok(())
    }

    fn front(&mut self, mut front: Box<Front>, sector: &Sector) -> Result<(), Error> {
        let Header {
            descriptor,
            descriptor_len,
            overhead,
            ..
        } = front.header;
        if (descriptor..descriptor + descriptor_len).contains(&front.sector) {
            front.descriptor.extend_from_slice(sector);
        }
        if let Some(tables) = &mut front.tables {
            tables.look(front.sector, sector);
        }
        front.sector += 1;
        self.at += SECTOR;
        if front.sector < overhead {
            self.stage = Stage::Front(front);
            return Ok(());
        }
        let descriptor = Descriptor::parse(&front.descriptor);
        if let Some(parent) = descriptor.parent {
            return Err(self.unsupported(&format!("it holds only what differs from the disk {parent}")));
        }
        if descriptor.extents > 1 {
            return Err(self.unsupported(&format!("its disk has {} files", descriptor.extents)));
        }
        self.head = Some(Head {
            capacity: front.header.capacity,
            grain: front.header.grain,
            adapter: descriptor.adapter,
            expected: front.tables.and_then(|tables| tables.grains(overhead)),
        });
        Ok(())
    }

    fn marker(&mut self, sector: &Sector, grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        let (value, size, kind) = (u64_at(sector, 0), u32_at(sector, 8), u32_at(sector, 12));
        if size > 0 {
            return self.grain_begins(sector, grains);
        }
        let directory = self.head.as_ref().map_or(0, Head::directory);
        self.stage = match (kind, value) {
            (marker::END, 0) => Stage::End,
            (marker::TABLE, tables::SECTORS) => Stage::Table,
            (marker::DIRECTORY, sectors) if sectors == directory => Stage::Directory(sectors * SECTOR),
            (marker::FOOTER, 1) => Stage::Footer,
            (marker::PROGRESS, 0) => Stage::Marker,
            _ => {
                return Err(self.corrupt(&format!("a marker of type {kind} announces {value} sectors")));
            }
        };
        match self.stage {
            // Who takes the reader up before the table, directory or footer is whole goes on at its marker.
            Stage::Table | Stage::Directory(_) | Stage::Footer => return Ok(()),
            _ => self.progress.end = matches!(self.stage, Stage::End),
        }
        self.at += SECTOR;
        Ok(())
    }

    fn grain_begins(&mut self, sector: &Sector, grains: &mut Vec<PackedGrain>) -> Result<(), Error> {
        let (lba, size) = (u64_at(sector, 0), u32_at(sector, 8) as usize);
        let (capacity, grain) = self.head.as_ref().map_or((0, 1), |head| (head.capacity, head.grain));
        if lba >= capacity || !lba.is_multiple_of(grain) {
            return Err(self.corrupt(&format!("a grain claims sector {lba} of a disk of {capacity}")));
        }
        // Deflate never needs more than a few bytes more than what it packs.
        if size as u64 > 2 * grain * SECTOR {
            return Err(self.corrupt(&format!("the grain at sector {lba} of the disk claims {size} bytes")));
        }
        if !self.seen.insert(lba / grain) {
            return Err(self.corrupt(&format!("the grain at sector {lba} of the disk comes twice")));
        }
        let start = spec::GRAIN_HEADER_LEN as usize;
        let first = size.min(sector.len() - start);
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&sector[start..start + first]);
        let left = (start + size).next_multiple_of(sector.len()) - sector.len();
        self.stage = Stage::Grain(Grain { lba, bytes, size, left });
        if left == 0 {
            self.grain_done(grains);
        }
        Ok(())
    }

    fn grain_done(&mut self, grains: &mut Vec<PackedGrain>) {
        let (Stage::Grain(grain), Some(head)) = (std::mem::replace(&mut self.stage, Stage::Marker), &self.head) else {
            return;
        };
        self.since.note(grain.lba / head.grain, self.at / SECTOR);
        self.at += (spec::GRAIN_HEADER_LEN + grain.size as u64).next_multiple_of(SECTOR);
        self.progress.grains += 1;
        self.progress.disorder |= grain.lba < self.progress.next;
        self.progress.next = self.progress.next.max(grain.lba + head.grain);
        grains.push(PackedGrain {
            guest: grain.lba * SECTOR,
            len: (head.grain.min(head.capacity - grain.lba) * SECTOR) as u32,
            bytes: grain.bytes,
            grain: (head.grain * SECTOR) as u32,
        });
    }

    fn table(&mut self, table: &[u8]) -> Result<(), Error> {
        if !self.since.agrees(table) {
            let at = self.at;
            return Err(self.corrupt(&format!("the grain table at byte {at} names other grains than came")));
        }
        self.at += SECTOR + table.len() as u64;
        Ok(())
    }

    /// The directory is whole.
    fn directory(&mut self) {
        let sectors = self.head.as_ref().map_or(0, Head::directory);
        self.at += SECTOR + sectors * SECTOR;
        self.progress.directory = true;
    }

    fn footer(&mut self, sector: &Sector) -> Result<(), Error> {
        let footer = Header::parse(sector).map_err(|refusal| self.refuse(refusal))?;
        let same = |head: &Head| (head.capacity, head.grain) == (footer.capacity, footer.grain);
        if !self.head.as_ref().is_some_and(same) {
            return Err(self.corrupt("its footer is of another disk than its header"));
        }
        self.progress.footer = true;
        self.at += 2 * SECTOR;
        Ok(())
    }

    /// After the end marker comes nothing, or what somebody filled the last block up with.
    fn zeros(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(self.corrupt("it goes on after its end marker"))
    }

    fn refuse(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Corrupt(detail) => self.corrupt(&detail),
            Refusal::Unsupported(detail) => self.unsupported(&detail),
        }
    }

    fn corrupt(&self, detail: &str) -> Error {
        Fault::new(Kind::Corrupt, "read", self.object())
            .detail(format!("{detail} (near byte {} of the file)", self.at))
            .remedy("make the file again, or copy it again")
    }

    fn unsupported(&self, detail: &str) -> Error {
        Fault::new(Kind::Unsupported, "read", self.object())
            .detail(detail)
            .remedy("convert it first: qemu-img convert -O vmdk -o subformat=streamOptimized")
    }

    fn object(&self) -> String {
        format!("the streamOptimized VMDK {}", self.name)
    }
}
