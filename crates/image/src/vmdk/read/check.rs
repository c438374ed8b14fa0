//! Checking the files of a disk: that tables and grains lie within their file, and nowhere on top of each other.
//!
//! A file is looked at in windows: for each of them all tables are walked once more. What is wrong with an entry itself is said in
//! the first walk only.

use std::ops::Range;

use super::extent::Extent;
use super::header::Header;
use super::sparse::Sparse;
use super::{Vmdk, spec};
use crate::Error;
use crate::check::Report;
use crate::place::Place;
use crate::vmdk::spec::SECTOR;

/// Sectors of a window: 32 GiB of a file in 8 MiB of memory.
const WINDOW: u64 = 64 << 20;
/// Grain tables that are loaded at once.
const TABLES: u64 = 512;

impl Vmdk {
    /// Checks everything but the content of compressed grains.
    pub(crate) async fn check(&self, report: &mut Report) -> Result<(), Error> {
        for sparse in self.extents.iter().filter_map(Extent::as_sparse) {
            report.total_clusters += sparse.len.div_ceil(sparse.header.grain);
            let before = report.errors;
            let checked = sparse.check_tables().await;
            report.take(checked)?;
            if report.errors == before {
                sparse.check(report).await?;
            }
        }
        Ok(())
    }
}

impl Sparse {
    async fn check(&self, report: &mut Report) -> Result<(), Error> {
        let sectors = self.source().file.size().div_ceil(SECTOR);
        let mut first = 0;
        while first < sectors {
            let mut used = Used::new(first, sectors);
            self.use_metadata(&mut used, report);
            self.use_grains(&mut used, report).await?;
            first += WINDOW;
        }
        Ok(())
    }

    fn use_metadata(&self, used: &mut Used, report: &mut Report) {
        let Header {
            descriptor,
            directory,
            redundant,
            ..
        } = &self.header;
        used.take(0..spec::HEADER_LEN, report, "the header");
        used.take(directory.clone(), report, "the grain directory");
        for (area, what) in [
            (descriptor, "the descriptor"),
            (redundant, "the redundant grain directory"),
        ] {
            if let Some(area) = area {
                used.take(area.clone(), report, what);
            }
        }
    }

    async fn use_grains(&self, used: &mut Used, report: &mut Report) -> Result<(), Error> {
        let span = self.header.table_span();
        let tables = self.len.div_ceil(span);
        let mut loaded = 0;
        for index in 0..tables {
            let at = self.first + index * span;
            let table = self.table(index).await;
            if !used.is_first() && table.is_err() {
                continue;
            }
            let Some(Some(table)) = report.take(table)? else {
                continue;
            };
            if index >= loaded {
                self.load_sound(index, tables).await?;
                loaded = index + TABLES;
            }
            used.take(table..table + self.header.table_len(), report, "a grain table");
            let entries = self.entries(table).await?;
            let grains = span.min(self.first + self.len - at).div_ceil(self.header.grain);
            for grain in 0..grains {
                self.use_grain(&entries, at + grain * self.header.grain, used, report)?;
            }
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// Loads the tables from this one on that can be loaded.
    async fn load_sound(&self, index: u64, tables: u64) -> Result<(), Error> {
        let mut sound = Vec::new();
        for index in index..(index + TABLES).min(tables) {
            if let Ok(Some(table)) = self.table(index).await {
                sound.push(table..table + self.header.table_len());
            }
        }
        self.load(sound).await
    }

    fn use_grain(&self, table: &[u8], at: u64, used: &mut Used, report: &mut Report) -> Result<(), Error> {
        let place = self.place(table, at);
        if !used.is_first() && place.is_err() {
            return Ok(());
        }
        let (offset, len) = match report.take(place)? {
            Some(Place::Data(spot)) => (spot.offset, self.header.grain),
            // How long it is, only its marker says.
            Some(Place::Packed(packed)) => {
                report.compressed_clusters += u64::from(used.is_first());
                (packed.spot.offset, SECTOR)
            }
            _ => return Ok(()),
        };
        report.allocated_clusters += u64::from(used.is_first());
        used.take(offset..offset + len, report, "a grain");
        Ok(())
    }
}

/// Which sectors of a window are used.
struct Used {
    first: u64,
    sectors: u64,
    bits: Vec<u64>,
}

impl Used {
    fn new(first: u64, sectors: u64) -> Self {
        let sectors = WINDOW.min(sectors - first);
        Self {
            first,
            sectors,
            bits: vec![0; sectors.div_ceil(64) as usize],
        }
    }

    /// Whether it is the first: what has nothing to do with its sectors is looked at then.
    fn is_first(&self) -> bool {
        self.first == 0
    }

    /// Uses a part of the file for something.
    fn take(&mut self, bytes: Range<u64>, report: &mut Report, what: &str) {
        let start = (bytes.start / SECTOR).max(self.first);
        let end = bytes.end.div_ceil(SECTOR).min(self.first + self.sectors);
        let mut twice = None;
        for sector in start..end {
            let index = sector - self.first;
            if let Some(word) = self.bits.get_mut((index / 64) as usize) {
                let bit = 1 << (index % 64);
                if *word & bit != 0 {
                    twice = twice.or(Some(sector));
                }
                *word |= bit;
            }
        }
        if let Some(sector) = twice {
            report.error(|| {
                format!(
                    "{what} at {} is on top of something else, at sector {sector}",
                    bytes.start
                )
            });
        }
    }
}
