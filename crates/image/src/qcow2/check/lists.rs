//! Where the areas of an image are that the header and lists in the file name: snapshots and bitmaps.

use std::ops::Range;

use vmferry_block::Buf;

use super::window::Window;
use crate::Error;
use crate::check::Report;
use crate::qcow2::{Qcow2, spec};
use crate::tables::SLICE;

/// The areas that are referred to once each.
pub(super) struct Lists {
    /// Header, tables and lists, without what they lead to.
    pub(super) areas: Vec<Range<u64>>,
    /// L1 tables: the active one first, then those of snapshots.
    pub(super) tables: Vec<Range<u64>>,
    /// Bitmap tables.
    pub(super) bitmaps: Vec<Range<u64>>,
}

impl Qcow2 {
    pub(super) async fn lists(&self, report: &mut Report) -> Result<Lists, Error> {
        let header = &self.header;
        let mut lists = Lists {
            areas: Vec::new(),
            tables: Vec::new(),
            bitmaps: Vec::new(),
        };
        lists.areas.push(0..self.format.cluster_size());
        if !header.refcount_table.is_empty() {
            lists.areas.push(header.refcount_table.clone());
        }
        let all = header.l1_all.clone();
        if all.is_empty() {
            // Nothing: the disk is empty. Its place among the tables is kept.
            lists.tables.push(0..0);
        } else if self.is_area(&all, report, "the L1 table") {
            lists.areas.push(all.clone());
            lists.tables.push(all);
        } else {
            lists.tables.push(header.l1.clone());
        }
        self.snapshots(&mut lists, report).await?;
        self.bitmaps(&mut lists, report).await?;
        Ok(lists)
    }

    /// [Snapshots].
    async fn snapshots(&self, lists: &mut Lists, report: &mut Report) -> Result<(), Error> {
        let (count, start) = self.header.snapshots;
        if count == 0 {
            return Ok(());
        }
        if count > spec::MAX_SNAPSHOTS {
            report.error(|| format!("{count} snapshots"));
            return Ok(());
        }
        let mut at = start;
        for number in 0..count {
            let Some(entry) = self.entry(at, spec::SNAPSHOT_LEN, report, "a snapshot").await? else {
                return Ok(());
            };
            let (offset, entries) = (be(&entry, 0, 8), be(&entry, 8, 4));
            let l1 = offset..offset.saturating_add(entries * 8);
            let what = format!("the L1 table of snapshot {number}");
            if entries > spec::MAX_L1_ENTRIES {
                report.error(|| format!("{what} has {entries} entries"));
            } else if lists.tables.contains(&l1) {
                report.error(|| format!("{what} is another's, too"));
            } else if entries > 0 && self.is_area(&l1, report, &what) {
                lists.areas.push(l1.clone());
                lists.tables.push(l1);
            }
            let more = be(&entry, 12, 2) + be(&entry, 14, 2) + be(&entry, 36, 4);
            at = (at + spec::SNAPSHOT_LEN + more - start).next_multiple_of(8) + start;
        }
        lists.areas.push(start..at);
        Ok(())
    }

    /// [Bitmaps].
    async fn bitmaps(&self, lists: &mut Lists, report: &mut Report) -> Result<(), Error> {
        let Some(bitmaps) = self.header.bitmaps else {
            return Ok(());
        };
        let start = bitmaps.directory_offset;
        let directory = start..start.saturating_add(bitmaps.directory_size);
        if bitmaps.count > spec::MAX_BITMAPS || !self.is_area(&directory, report, "the bitmap directory") {
            return Ok(());
        }
        lists.areas.push(directory.clone());
        let mut at = start;
        for _ in 0..bitmaps.count {
            let Some(entry) = self.entry(at, spec::BITMAP_LEN, report, "a bitmap").await? else {
                return Ok(());
            };
            let (offset, entries) = (be(&entry, 0, 8), be(&entry, 8, 4));
            let table = offset..offset.saturating_add(entries * 8);
            if entries > 0 && self.is_area(&table, report, "a bitmap table") {
                lists.areas.push(table.clone());
                lists.bitmaps.push(table);
            }
            at += (spec::BITMAP_LEN + be(&entry, 18, 2) + be(&entry, 20, 4)).next_multiple_of(8);
            if at > directory.end {
                report.error(|| "the bitmap directory is too short".to_owned());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Refers to the clusters of a bitmap.
    pub(super) async fn walk_bitmap(
        &self,
        table: &Range<u64>,
        window: &mut Window,
        report: &mut Report,
    ) -> Result<(), Error> {
        for slice in 0..(table.end - table.start).div_ceil(SLICE) {
            let entries = self.file.get_in(table, slice).await?;
            for word in entries.as_chunks::<8>().0 {
                let offset = u64::from_be_bytes(*word) & spec::OFFSET;
                if offset != 0 && self.check_aligned(offset, window, report, "a cluster of a bitmap") {
                    window.refer(
                        offset..offset.saturating_add(self.format.cluster_size()),
                        report,
                        "a cluster of a bitmap",
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads the start of an entry of a list.
    async fn entry(&self, at: u64, len: u64, report: &mut Report, what: &str) -> Result<Option<Buf>, Error> {
        if at.checked_add(len).is_none_or(|end| end > self.source().file.size()) {
            report.error(|| format!("{what} is said to be at {at}, past the end of the file"));
            return Ok(None);
        }
        self.source().read(at, len).await.map(Some)
    }

    /// Whether an area that a list names can be one.
    fn is_area(&self, area: &Range<u64>, report: &mut Report, what: &str) -> bool {
        let aligned = area.start.is_multiple_of(self.format.cluster_size()) && area.start > 0;
        let inside = area.end <= self.source().file.size() && area.start < area.end;
        if !aligned || !inside {
            report.error(|| format!("{what} is said to be at {} to {}", area.start, area.end));
        }
        aligned && inside
    }
}

/// A big-endian number.
fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
