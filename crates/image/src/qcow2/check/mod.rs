//! Checking a qcow2 image as `qemu-img check` does: every cluster must be counted as often as it is referred to.
//!
//! References are counted in windows of the file: for each window all tables are walked once more. What is wrong with an entry
//! itself is said in the first walk only.

mod lists;
mod window;

use std::ops::Range;

use self::window::Window;
use super::{Qcow2, spec};
use crate::Error;
use crate::check::Report;
use crate::place::Place;
use crate::tables::{SLICE, be64};

impl Qcow2 {
    /// Checks everything but the content of clusters.
    pub(crate) async fn check(&self, report: &mut Report) -> Result<(), Error> {
        let size = self.format.cluster_size();
        report.total_clusters = self.size().div_ceil(size);
        let lists = self.lists(report).await?;
        let clusters = self.source().file.size().div_ceil(size);
        let mut start = 0;
        while start < clusters.max(1) {
            let mut window = Window::new(start, clusters, size);
            self.count_refcount_blocks(&mut window, report).await?;
            for list in &lists.areas {
                window.refer(list.clone(), report, "a table");
            }
            let entries = lists.tables.iter().enumerate();
            for (index, l1) in entries {
                self.walk(l1, index == 0, &mut window, report).await?;
            }
            for table in &lists.bitmaps {
                self.walk_bitmap(table, &mut window, report).await?;
            }
            window.compare(report);
            start += window.len();
        }
        Ok(())
    }

    /// Refers to all that an L1 table leads to. Only the active state says something about flags and about how full the disk is.
    async fn walk(&self, l1: &Range<u64>, active: bool, window: &mut Window, report: &mut Report) -> Result<(), Error> {
        let size = self.format.cluster_size();
        let mut tables = 0;
        for slice in 0..(l1.end - l1.start).div_ceil(SLICE) {
            let entries = self.file.get_in(l1, slice).await?;
            let entries: Vec<u64> = entries
                .as_chunks::<8>()
                .0
                .iter()
                .map(|word| u64::from_be_bytes(*word))
                .collect();
            for (chunk_at, chunk) in entries.chunks(64).enumerate() {
                let first = slice * SLICE / 8 + chunk_at as u64 * 64;
                let mut sound = Vec::new();
                for (index, entry) in (first..).zip(chunk) {
                    let offset = entry & spec::OFFSET;
                    if entry & spec::L1_RESERVED != 0 && window.is_first() {
                        report.error(|| format!("L1 entry {index} has reserved bits set: {entry:#x}"));
                    }
                    if offset == 0 {
                        continue;
                    }
                    self.check_aligned(offset, window, report, "an L2 table");
                    let inside = window.refer(offset..offset.saturating_add(size), report, "an L2 table");
                    if inside && offset + size <= self.source().file.size() {
                        sound.push(offset);
                    } else if inside && window.is_first() {
                        report.error(|| format!("the L2 table at {offset} is cut off"));
                    }
                    if active {
                        window.check_copied(offset, *entry, report, "L1 entry", index);
                    }
                }
                tables += sound.len() as u64;
                if tables * size > self.source().file.size() {
                    // In a sound image each lies in a place of its own. Walking all of them could take forever.
                    report.error(|| "an L1 table points to more L2 tables than the file has room for".to_owned());
                    return Ok(());
                }
                self.walk_tables(&sound, active, window, report).await?;
            }
        }
        Ok(())
    }

    async fn walk_tables(
        &self,
        tables: &[u64],
        active: bool,
        window: &mut Window,
        report: &mut Report,
    ) -> Result<(), Error> {
        let slices =
            |table: u64| (0..self.format.cluster_size() / self.slice_len()).map(move |n| table + n * self.slice_len());
        // As many tables at once as the cache is sure to hold.
        let at_once = ((2 << 20) / self.format.cluster_size()).max(1) as usize;
        for some in tables.chunks(at_once) {
            let all = some.iter().flat_map(|table| slices(*table));
            self.file
                .load(all.map(|at| at..at + self.slice_len()).collect())
                .await?;
            for at in some.iter().flat_map(|table| slices(*table)) {
                let slice = self.file.get(at, self.slice_len()).await?;
                self.walk_slice(&slice, active, window, report);
                tokio::task::consume_budget().await;
            }
        }
        Ok(())
    }

    fn walk_slice(&self, slice: &[u8], active: bool, window: &mut Window, report: &mut Report) {
        let words = self.format.words();
        let size = self.format.cluster_size();
        for index in 0..self.slice_len() / 8 / words {
            let entry = be64(slice, index * words).unwrap_or(0);
            let bitmap = if words == 2 {
                be64(slice, index * words + 1).unwrap_or(0)
            } else {
                0
            };
            if entry == 0 && bitmap == 0 {
                continue;
            }
            if window.is_first() {
                self.check_entry(entry, bitmap, report);
            }
            if entry & spec::COMPRESSED != 0 {
                if let Ok(Place::Packed(packed)) = self.format.decode(0, entry, 0) {
                    let start = packed.spot.offset & !511;
                    let end = packed.spot.offset.saturating_add(packed.len);
                    window.refer(start..end, report, "a compressed cluster");
                }
                if active && window.is_first() {
                    report.allocated_clusters += 1;
                    report.compressed_clusters += 1;
                }
                continue;
            }
            let offset = entry & spec::OFFSET;
            if offset == 0 {
                continue;
            }
            self.check_aligned(offset, window, report, "a data cluster");
            window.refer(offset..offset.saturating_add(size), report, "a data cluster");
            if active {
                report.allocated_clusters += u64::from(window.is_first());
                window.check_copied(offset, entry, report, "the L2 entry of the data at", offset);
            }
        }
    }

    /// What is wrong with an L2 entry itself.
    fn check_entry(&self, entry: u64, bitmap: u64, report: &mut Report) {
        let compressed = entry & spec::COMPRESSED != 0;
        if compressed && entry & spec::COPIED != 0 {
            report.error(|| format!("the entry {entry:#x} of a compressed cluster says that the cluster is its own"));
        }
        if !compressed && entry & spec::L2_RESERVED != 0 {
            report.error(|| format!("an L2 entry has reserved bits set: {entry:#x}"));
        }
        // Subclusters have a meaning each.
        let unit = self.format.unit();
        let units = self.format.cluster_size() / unit;
        let aligned = entry & spec::OFFSET & (self.format.cluster_size() - 1) == 0;
        if !compressed && !aligned {
            return;
        }
        let bad = (0..units).find_map(|index| self.format.decode(index * unit, entry, bitmap).err());
        if let Some(detail) = bad {
            report.error(|| format!("{detail}: {entry:#x} {bitmap:#x}"));
        }
    }

    fn check_aligned(&self, offset: u64, window: &Window, report: &mut Report, what: &str) -> bool {
        let aligned = offset.is_multiple_of(self.format.cluster_size());
        if !aligned && window.is_first() {
            report.error(|| format!("{what} is said to be at {offset}, in the middle of a cluster"));
        }
        aligned
    }

    /// Refers to the refcount blocks, and reads the counts of the window from them.
    async fn count_refcount_blocks(&self, window: &mut Window, report: &mut Report) -> Result<(), Error> {
        let (size, order) = (self.format.cluster_size(), self.header.refcount_order);
        let table = &self.header.refcount_table;
        if table.end > self.source().file.size() {
            report.error(|| format!("the refcount table ends at {}, past the end of the file", table.end));
            return Ok(());
        }
        let per_block = (size * 8) >> order;
        for slice in 0..(table.end - table.start).div_ceil(SLICE) {
            let entries = self.file.get_in(table, slice).await?;
            for (index, word) in (slice * SLICE / 8..).zip(entries.as_chunks::<8>().0) {
                let entry = u64::from_be_bytes(*word);
                let offset = entry & spec::REFCOUNT_OFFSET;
                if entry != offset && window.is_first() {
                    report.error(|| format!("entry {index} of the refcount table has reserved bits set: {entry:#x}"));
                }
                if offset == 0 || !self.check_aligned(offset, window, report, "a refcount block") {
                    continue;
                }
                let block = offset..offset.saturating_add(size);
                if !window.refer(block.clone(), report, "a refcount block") || block.end > self.source().file.size() {
                    continue;
                }
                let first = index.saturating_mul(per_block);
                if window.touches(first, per_block) {
                    self.count_block(offset, first, window).await?;
                }
            }
        }
        Ok(())
    }

    async fn count_block(&self, block: u64, first: u64, window: &mut Window) -> Result<(), Error> {
        let order = self.header.refcount_order;
        let per_slice = (self.slice_len() * 8) >> order;
        let slices = (0..self.format.cluster_size() / self.slice_len())
            .map(|n| (block + n * self.slice_len(), first + n * per_slice))
            .filter(|(_, first)| window.touches(*first, per_slice));
        let slices: Vec<_> = slices.collect();
        self.file
            .load(slices.iter().map(|(at, _)| *at..at + self.slice_len()).collect())
            .await?;
        for (at, first) in slices {
            window.count(first, &self.file.get(at, self.slice_len()).await?, order);
        }
        Ok(())
    }
}
