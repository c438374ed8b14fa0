//! Which part goes where.

use super::super::refusal::Refusal;
use crate::Kind;
use crate::web::Trouble;

/// The largest piece that a server copies. AWS S3, `UploadPartCopy`.
const LARGEST: u64 = 5 << 30;

/// How an upload is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Shape {
    /// How many parts of one object the server takes.
    pub(in super::super) count: u32,
    /// Length of a segment in bytes, where that gives few enough of them.
    pub(in super::super) segment: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            count: 10_000,
            segment: 1 << 30,
        }
    }
}

impl Shape {
    /// The longest object that can be joined of segments, in bytes.
    pub(in super::super) fn most(self) -> u64 {
        LARGEST * u64::from(self.count)
    }

    /// The cut of an upload of at most `most` bytes; `None` where the server takes as many parts.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what no server takes.
    pub(in super::super) fn cut(self, most: u64, part_size: u64) -> Result<Option<Cut>, Refusal> {
        let (part_size, count) = (part_size.max(1), u64::from(self.count));
        let parts = most.div_ceil(part_size);
        if parts <= count {
            return Ok(None);
        }
        // Of this length, or longer where so many would be too many.
        let per_segment = self.segment.div_ceil(part_size).max(parts.div_ceil(count)).max(1);
        let segments = parts.div_ceil(per_segment);
        let fits = per_segment.saturating_mul(part_size) <= LARGEST.max(part_size) && segments <= count;
        let cut = match (
            u32::try_from(count.saturating_sub(segments)),
            u32::try_from(per_segment),
        ) {
            (Ok(direct), Ok(per_segment)) if fits && u32::try_from(parts).is_ok() => Cut { direct, per_segment },
            _ => {
                let detail = format!("{most} bytes in parts of {part_size} are more than an object can have");
                return Err(Trouble::new(Kind::Invalid, detail).into());
            }
        };
        Ok(Some(cut))
    }
}

/// How the parts of an upload are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Cut {
    /// So many parts are parts of the object itself.
    pub(in super::super) direct: u32,
    /// Those that follow are in segments of so many.
    pub(in super::super) per_segment: u32,
}

/// Where a part goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a part of the object.
    Direct,
    /// It is part `part` of a segment.
    Segment { segment: u32, part: u32 },
}

impl Cut {
    /// Reads `direct+per_segment`.
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        let (direct, per_segment) = text.split_once('+')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        let per_segment = number(per_segment).filter(|count| *count > 0)?;
        let direct = number(direct)?;
        Some(Self { direct, per_segment })
    }

    pub(super) fn place(self, number: u32) -> Place {
        match number.checked_sub(self.direct) {
            None => Place::Direct,
            Some(past) => Place::Segment {
                segment: past / self.per_segment,
                part: past % self.per_segment,
            },
        }
    }

    /// The number of the first part of a segment.
    pub(super) fn first(self, segment: u32) -> u32 {
        self.direct.saturating_add(segment.saturating_mul(self.per_segment))
    }

    /// The number, within the object itself, of the piece that a segment becomes.
    pub(super) fn piece(self, segment: u32) -> u32 {
        self.direct.saturating_add(segment)
    }

    /// The segment that a piece of the object comes from; `None` for a part of its own.
    pub(super) fn segment(self, piece: u32) -> Option<u32> {
        piece.checked_sub(self.direct)
    }

    /// How many parts of an object of `parts` are in a segment.
    pub(super) fn count_in(self, segment: u32, parts: u32) -> u32 {
        parts.saturating_sub(self.first(segment)).min(self.per_segment)
    }

    /// Of how many pieces the object itself is made when there are `parts` parts.
    pub(super) fn pieces(self, parts: u32) -> u32 {
        match parts.checked_sub(self.direct) {
            None => parts,
            Some(past) => self.direct + past.div_ceil(self.per_segment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn what_fits_is_not_cut() {
        let shape = Shape::default();
        for (most, part) in [(0, 8 * MIB), (10_000 * 8 * MIB, 8 * MIB), (10_000 * 5 * GIB, 5 * GIB)] {
            assert_eq!(shape.cut(most, part).unwrap(), None);
        }
        assert_eq!(shape.most(), 10_000 * 5 * GIB);
    }

    #[test]
    fn a_gib_each_and_as_many_direct_as_are_left() {
        let shape = Shape::default();
        for (most, direct, per_segment) in [
            (500 * GIB, 9_500, 64),
            (4 << 40, 10_000 - 4096, 64),
            (10_000 * GIB, 0, 64),
            (10_001 * GIB, 152, 65),
            (48 << 40, 13, 315),
        ] {
            let cut = shape.cut(most, 16 * MIB).unwrap().unwrap();
            assert_eq!(cut, Cut { direct, per_segment }, "{most}");
        }
        for (most, part) in [(49 << 40, 16 * MIB), (u64::MAX, MIB), (u64::MAX, 1), (40 << 40, 1)] {
            assert_eq!(shape.cut(most, part).unwrap_err().trouble.kind, Kind::Invalid, "{most}");
        }
    }

    /// Every part has one place, places follow one another as parts do, and neither object nor segment has too many.
    #[test]
    fn places_are_in_order_and_within_the_limits() {
        for count in 1..8_u32 {
            for segment in 1..6 {
                let shape = Shape { count, segment };
                for parts in count + 1..60 {
                    let cut = shape.cut(u64::from(parts), 1).unwrap().unwrap();
                    assert!(cut.pieces(parts) <= count, "{shape:?} {parts} {cut:?}");
                    let mut next = (0, 0);
                    for number in 0..parts {
                        let place = match cut.place(number) {
                            Place::Direct => (number, 0),
                            Place::Segment { segment, part } => {
                                assert_eq!(cut.first(segment) + part, number);
                                assert_eq!(cut.segment(cut.piece(segment)), Some(segment));
                                assert!(part < cut.count_in(segment, parts));
                                (cut.piece(segment), part)
                            }
                        };
                        assert_eq!(place, next, "{cut:?} {number}");
                        let is_last = match cut.place(number) {
                            Place::Direct => true,
                            Place::Segment { part, .. } => part + 1 == cut.per_segment,
                        };
                        next = if is_last {
                            (place.0 + 1, 0)
                        } else {
                            (place.0, place.1 + 1)
                        };
                    }
                    assert_eq!(cut.pieces(parts), next.0 + u32::from(next.1 > 0));
                }
            }
        }
    }
}
