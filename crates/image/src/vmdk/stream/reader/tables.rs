//! What the tables of a file say, held against the grains that came.

use crate::vmdk::spec;

/// Entries of a grain table.
const ENTRIES: u64 = spec::TABLE_ENTRIES as u64;
/// Sectors of a grain table.
pub(super) const SECTORS: u64 = ENTRIES * spec::ENTRY_LEN / spec::SECTOR;

/// Where the grains since the last grain table were: the next table must say the same.
#[derive(Debug, Clone)]
pub(super) struct Since {
    /// The table to which they belong.
    table: Option<u64>,
    /// They belong to several tables, or are not all known: nothing can be said of the next table.
    mixed: bool,
    sectors: Vec<u32>,
}

impl Since {
    /// Before the first grain; `known` is false for who starts in the middle.
    pub(super) fn new(known: bool) -> Self {
        Self {
            table: None,
            mixed: !known,
            sectors: vec![0; ENTRIES as usize],
        }
    }

    /// Notes a grain by its number and its sector in the file.
    pub(super) fn note(&mut self, grain: u64, sector: u64) {
        let table = grain / ENTRIES;
        self.mixed |= self.table.is_some_and(|known| known != table);
        self.table = Some(table);
        match u32::try_from(sector) {
            Ok(sector) => self.sectors[(grain % ENTRIES) as usize] = sector,
            Err(_) => self.mixed = true,
        }
    }

    /// Whether a grain table may follow: each grain that it names since the last table is where it came.
    pub(super) fn agrees(&mut self, table: &[u8]) -> bool {
        let (entries, _) = table.as_chunks::<4>();
        let same = |(known, entry): (&u32, &[u8; 4])| *known == 0 || *known == u32::from_le_bytes(*entry);
        let agrees = self.mixed || self.table.is_none() || self.sectors.iter().zip(entries).all(same);
        *self = Self::new(true);
        agrees
    }
}

/// Counts the grains that tables in front of the grains name, so that a file that is cut off is not taken for a whole one.
#[derive(Debug, Clone)]
pub(super) struct InFront {
    /// First sector of the grain directory, and its entries.
    directory: u64,
    entries: u64,
    /// The grain tables in order of the file, once the directory came.
    tables: Vec<u32>,
    /// Which table comes next.
    next: usize,
    /// Words of the directory that came.
    came: u64,
    grains: u64,
    /// A table is not where it can be counted.
    lost: bool,
}

impl InFront {
    pub(super) fn new(directory: u64, entries: u64) -> Self {
        Self {
            directory,
            entries,
            tables: Vec::new(),
            next: 0,
            came: 0,
            grains: 0,
            lost: false,
        }
    }

    /// Looks at one sector before the grains.
    pub(super) fn look(&mut self, sector: u64, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        if self.came < self.entries {
            if sector >= self.directory {
                let left = (self.entries - self.came).min(words.len() as u64) as usize;
                let named = words[..left].iter().map(|word| u32::from_le_bytes(*word));
                self.tables.extend(named.filter(|table| *table != 0));
                self.came += left as u64;
                if self.came == self.entries {
                    self.order(sector);
                }
            }
            return;
        }
        while self
            .tables
            .get(self.next)
            .is_some_and(|table| u64::from(*table) + SECTORS <= sector)
        {
            self.next += 1;
        }
        if self
            .tables
            .get(self.next)
            .is_some_and(|table| u64::from(*table) <= sector)
        {
            let grains = words
                .iter()
                .filter(|word| u32::from_le_bytes(**word) > spec::GRAIN_ZEROED);
            self.grains += grains.count() as u64;
        }
    }

    /// The directory came, up to this sector.
    fn order(&mut self, last: u64) {
        self.tables.sort_unstable();
        let overlap = self
            .tables
            .windows(2)
            .any(|pair| u64::from(pair[1] - pair[0]) < SECTORS);
        let passed = self.tables.first().is_some_and(|first| u64::from(*first) <= last);
        self.lost |= overlap || passed;
    }

    /// How many grains the tables name, if all tables came before sector `overhead`.
    pub(super) fn grains(&self, overhead: u64) -> Option<u64> {
        let all = self
            .tables
            .last()
            .is_none_or(|last| u64::from(*last) + SECTORS <= overhead);
        (all && !self.lost && self.came == self.entries).then_some(self.grains)
    }
}
