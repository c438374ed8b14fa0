//! A sparse set of numbers (guest clusters, tables, bytes) in which each has its rank.

use std::ops::Range;

/// Ordered, disjoint runs of numbers. The rank of a number is how many of the set come before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    /// First number of each run and its rank.
    runs: Vec<(u64, u64)>,
    count: u64,
}

impl Runs {
    /// The units of `unit` bytes that ordered byte ranges touch.
    pub(super) fn of(ranges: impl Iterator<Item = Range<u64>>, unit: u64) -> Self {
        let mut runs = Self::default();
        for range in ranges.filter(|range| !range.is_empty()) {
            runs.push(range.start / unit..range.end.div_ceil(unit));
        }
        runs.runs.shrink_to_fit();
        runs
    }

    /// Adds numbers that begin no lower than the last run did; what is there already is left out.
    fn push(&mut self, numbers: Range<u64>) {
        let end = self.end();
        let start = numbers.start.max(end.unwrap_or(0));
        if start >= numbers.end {
            return;
        }
        if end != Some(start) {
            self.runs.push((start, self.count));
        }
        self.count += numbers.end - start;
    }

    fn end(&self) -> Option<u64> {
        self.runs.last().map(|(first, rank)| first + (self.count - rank))
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        (0..self.runs.len()).filter_map(|index| self.run(index).map(|(run, _)| run))
    }

    /// The runs in order, from the one that holds `number` or comes after it, with the rank of their first number.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        let next = self.runs.partition_point(|(first, _)| *first <= number);
        let start = match next.checked_sub(1).and_then(|index| self.run(index)) {
            Some((run, _)) if run.contains(&number) => next - 1,
            _ => next,
        };
        (start..self.runs.len()).filter_map(|index| self.run(index))
    }

    /// The number of this rank, and how many (itself included) follow without a gap.
    pub(super) fn nth(&self, rank: u64) -> Option<(u64, u64)> {
        let index = self.runs.partition_point(|(_, first)| *first <= rank).checked_sub(1)?;
        let (run, first) = self.run(index)?;
        let number = run.start + (rank - first);
        run.contains(&number).then(|| (number, run.end - number))
    }

    /// The rank of a number of the set, and how many (itself included) follow without a gap.
    pub(super) fn rank(&self, number: u64) -> Option<(u64, u64)> {
        let (run, rank) = self.from(number).next()?;
        run.contains(&number)
            .then(|| (rank + (number - run.start), run.end - number))
    }

    fn run(&self, index: usize) -> Option<(Range<u64>, u64)> {
        let (first, rank) = *self.runs.get(index)?;
        let end_rank = self.runs.get(index + 1).map_or(self.count, |(_, rank)| *rank);
        Some((first..first + (end_rank - rank), rank))
    }
}
