//! References and reference counts of a part of the file's clusters.

use std::ops::Range;

use crate::check::Report;
use crate::qcow2::spec;

/// Clusters of a window: 16 MiB of memory, and 256 GiB of a file with clusters of 64 KiB.
const LEN: u64 = 4 << 20;

/// Both count up to 65535, and stay there.
pub(super) struct Window {
    first: u64,
    cluster_size: u64,
    /// Where the file ends, in whole clusters.
    file_end: u64,
    /// How often each cluster is referred to.
    references: Vec<u16>,
    /// How often the image counts it.
    counts: Vec<u16>,
}

impl Window {
    /// A window from cluster `first` of a file of `clusters` clusters.
    pub(super) fn new(first: u64, clusters: u64, cluster_size: u64) -> Self {
        let len = LEN.min(clusters - first) as usize;
        Self {
            first,
            cluster_size,
            file_end: clusters.saturating_mul(cluster_size),
            references: vec![0; len],
            counts: vec![0; len],
        }
    }

    /// Clusters in it.
    pub(super) fn len(&self) -> u64 {
        self.references.len().max(1) as u64
    }

    /// Whether it is the first: what has nothing to do with its clusters is looked at then.
    pub(super) fn is_first(&self) -> bool {
        self.first == 0
    }

    /// Whether some of these clusters are in it.
    pub(super) fn touches(&self, first: u64, len: u64) -> bool {
        first < self.first + self.references.len() as u64 && first.saturating_add(len) > self.first
    }

    /// Notes a reference to a part of the file. Whether that lies in the file.
    pub(super) fn refer(&mut self, bytes: Range<u64>, report: &mut Report, what: &str) -> bool {
        if bytes.end > self.file_end || bytes.start >= bytes.end {
            if self.is_first() {
                report.error(|| format!("{what} is said to be at {}, past the end of the file", bytes.start));
            }
            return false;
        }
        let clusters = bytes.start / self.cluster_size..(bytes.end - 1) / self.cluster_size + 1;
        let end = (self.first + self.references.len() as u64).min(clusters.end);
        for cluster in clusters.start.max(self.first)..end {
            if let Some(count) = self.references.get_mut((cluster - self.first) as usize) {
                *count = count.saturating_add(1);
            }
        }
        true
    }

    /// Takes the counts from `first` on out of a part of a refcount block [Refcount block entry].
    pub(super) fn count(&mut self, first: u64, block: &[u8], order: u32) {
        let per_byte = if order < 3 { 8 >> order } else { 1 };
        let bytes = if order < 3 { 1 } else { 1usize << (order - 3) };
        let values = block.chunks_exact(bytes).flat_map(|entry| {
            let value = entry.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            let part = move |n: u32| {
                let mask = if order < 3 {
                    (1 << (1u64 << order)) - 1
                } else {
                    u64::MAX
                };
                value >> if order < 3 { n << order } else { 0 } & mask
            };
            (0..per_byte).map(part)
        });
        for (cluster, value) in (first..).zip(values) {
            let slot = cluster
                .checked_sub(self.first)
                .and_then(|index| self.counts.get_mut(index as usize));
            if let Some(slot) = slot {
                *slot = u16::try_from(value).unwrap_or(u16::MAX);
            }
        }
    }

    /// An entry must say that a cluster is its own exactly if that is counted once [L1 table entry, L2 table entry].
    pub(super) fn check_copied(&self, offset: u64, entry: u64, report: &mut Report, what: &str, index: u64) {
        let cluster = (offset / self.cluster_size).checked_sub(self.first);
        let Some(count) = cluster.and_then(|cluster| self.counts.get(cluster as usize)) else {
            return;
        };
        if (*count == 1) != (entry & spec::COPIED != 0) {
            report.error(|| format!("{what} {index} is {entry:#x}, and the refcount of its cluster is {count}"));
        }
    }

    /// Reports where counts and references differ.
    pub(super) fn compare(&self, report: &mut Report) {
        let mut leaked: Option<Range<u64>> = None;
        let pairs = self.references.iter().zip(&self.counts);
        for (cluster, (references, count)) in (self.first..).zip(pairs) {
            if count < references {
                report.error(|| {
                    let at = cluster * self.cluster_size;
                    format!("the cluster at {at} is referred to {references} times, and its refcount is {count}")
                });
            }
            if count <= references {
                continue;
            }
            match &mut leaked {
                Some(run) if run.end == cluster => run.end += 1,
                _ => {
                    self.leak(leaked.replace(cluster..cluster + 1), report);
                }
            }
        }
        self.leak(leaked, report);
    }

    fn leak(&self, run: Option<Range<u64>>, report: &mut Report) {
        if let Some(run) = run {
            let (start, end) = (run.start * self.cluster_size, run.end * self.cluster_size);
            report.leak(run.end - run.start, || {
                format!("the clusters from {start} to {end} are counted too often")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width() {
        let cases: [(u32, &[u8], [u16; 3]); 7] = [
            (0, &[0b101], [1, 0, 1]),
            (1, &[0b11_01_10], [2, 1, 3]),
            (2, &[0x21, 0x0f], [1, 2, 15]),
            (3, &[1, 255, 0], [1, 255, 0]),
            (4, &[0, 1, 1, 0, 255, 255], [1, 256, 65535]),
            (5, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0], [1, 2, 65535]),
            (
                6,
                &[0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                [9, 65535, 0],
            ),
        ];
        for (order, block, expected) in cases {
            let mut window = Window::new(10, 13, 512);
            window.count(10, block, order);
            assert_eq!(window.counts, expected, "order {order}");
        }
    }
}
