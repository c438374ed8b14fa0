//! What is known of the pieces of an upload.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard, OnceCell};

use super::super::ledger;
use super::super::multipart::{self, Listed};
use super::super::refusal::Refusal;
use super::super::small;
use super::super::upload::{Upload, Uploads};
use super::cut::{Cut, Place};
use super::{folder_of, number_in};
use crate::web::Trouble;
use crate::{Kind, ObjectKey, Part};

/// What one process knows of the uploads in segments of a bucket.
#[derive(Debug, Default)]
pub(in super::super) struct Segments {
    /// Whether segments can be joined, and then whether with checksums.
    pub(super) joins: OnceCell<bool>,
    entries: Mutex<HashMap<(ObjectKey, String), Arc<Entry>>>,
}

/// One upload.
#[derive(Debug, Default)]
pub(super) struct Entry {
    known: AsyncMutex<Option<Known>>,
    /// Held while segments are joined: one does that at a time.
    pub(super) joining: AsyncMutex<()>,
}

/// The pieces of an upload.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Parts of the object itself that arrived, by their number there: its own, and segments that were joined.
    pub(super) pieces: BTreeMap<u32, Piece>,
    /// Segments that are uploads.
    pub(super) open: BTreeMap<u32, Open>,
    /// Segments that are objects, not yet parts: their lengths in bytes.
    pub(super) made: BTreeMap<u32, u64>,
}

/// A part, of an object or of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) tag: String,
    /// Length in bytes.
    pub(super) len: u64,
}

/// A segment that is an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) id: String,
    pub(super) parts: BTreeMap<u32, Piece>,
}

impl Open {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.parts.values().map(|piece| piece.len).sum()
    }
}

impl Segments {
    pub(super) fn entry(&self, key: &ObjectKey, id: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry((key.clone(), id.to_owned())).or_default())
    }

    /// Forgets an upload of a key, or all of them.
    pub(in super::super) fn forget(&self, key: &ObjectKey, id: Option<&str>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(its_key, its_id), _| its_key != key || id.is_some_and(|id| its_id != id));
    }
}

impl Entry {
    /// What is known; `None` in it where that is nothing yet.
    pub(super) async fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().await
    }
}

impl Known {
    /// Segments that wait to be joined: those with all of their parts. Of an object of `parts` parts the last one may have fewer.
    pub(super) fn due(&self, cut: Cut, parts: Option<u32>) -> Vec<u32> {
        let count = |segment| parts.map_or(cut.per_segment, |parts| cut.count_in(segment, parts));
        let open = self.open.iter();
        let full = open.filter(|(segment, open)| open.parts.len() as u64 == u64::from(count(**segment)));
        let full = full.map(|(segment, _)| *segment).filter(|segment| count(*segment) > 0);
        self.made.keys().copied().chain(full).collect()
    }

    /// All parts that arrived.
    fn parts(&self, cut: Cut, part_size: u64) -> Vec<Part> {
        let whole = |segment, len: u64| {
            let first = cut.first(segment);
            let count = u32::try_from(len.div_ceil(part_size)).unwrap_or_default();
            first..first.saturating_add(count)
        };
        let pieces = self.pieces.iter().flat_map(|(piece, Piece { len, .. })| {
            let segment = cut.segment(*piece);
            segment.map_or(*piece..*piece + 1, |segment| whole(segment, *len))
        });
        let made = self.made.iter().flat_map(|(segment, len)| whole(*segment, *len));
        let open = self.open.iter();
        let open = open.flat_map(|(segment, open)| open.parts.keys().map(|part| cut.first(*segment) + part));
        let mut numbers: Vec<u32> = pieces.chain(made).chain(open).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // What the server wants to hear again is known here.
        let part = |number| Part {
            number,
            tag: String::new(),
        };
        numbers.into_iter().map(part).collect()
    }

    /// Puts down a part that arrived.
    pub(super) fn arrived(&mut self, cut: Cut, number: u32, piece: Piece) {
        match cut.place(number) {
            Place::Direct => {
                self.pieces.insert(number, piece);
            }
            Place::Segment { segment, part } => {
                if let Some(open) = self.open.get_mut(&segment) {
                    open.parts.insert(part, piece);
                }
            }
        }
    }
}

impl Uploads<'_> {
    /// The parts of an upload in segments, as the server lists them now.
    pub(in super::super) async fn look_up(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        cut: Cut,
    ) -> Result<Vec<Part>, Refusal> {
        let entry = self.segments.entry(key, &upload.id);
        let mut known = entry.lock().await;
        *known = None;
        Ok(self.known(&mut known, key, upload).await?.parts(cut, upload.part_size))
    }

    /// What is known, found out where it is nothing yet.
    pub(super) async fn known<'a>(
        &self,
        known: &'a mut Option<Known>,
        key: &ObjectKey,
        upload: &Upload,
    ) -> Result<&'a mut Known, Refusal> {
        let found = match known.take() {
            Some(found) => found,
            None => self.find(key, upload).await?,
        };
        Ok(known.insert(found))
    }

    async fn find(&self, key: &ObjectKey, upload: &Upload) -> Result<Known, Refusal> {
        let folder = folder_of(key, &upload.mark);
        let mut found = Known {
            pieces: self.listed(key.as_str(), &upload.id).await?,
            ..Known::default()
        };
        let cut = upload.cut.unwrap_or(Cut {
            direct: u32::MAX,
            per_segment: 1,
        });
        for object in small::list(self.wire, &folder).await? {
            match number_in(&folder, &object.key) {
                Some(number) if !found.pieces.contains_key(&cut.piece(number)) => {
                    found.made.insert(number, object.size);
                }
                _ => {}
            }
        }
        for listed in ledger::listed(self.wire, &folder).await? {
            let Some(number) = number_in(&folder, &listed.key) else {
                continue;
            };
            if found.made.contains_key(&number) || found.pieces.contains_key(&cut.piece(number)) {
                continue;
            }
            let parts = match self.listed(&listed.key, &listed.upload_id).await {
                Err(refusal) if matches!(refusal.trouble.kind, Kind::UploadGone | Kind::NotFound) => continue,
                parts => parts?,
            };
            // Where an answer was lost there are two: the one that nobody knew of has fewer, and goes with all that is left.
            let most = found.open.get(&number).map_or(0, |open| open.parts.len());
            if parts.len() >= most {
                let id = listed.upload_id;
                found.open.insert(number, Open { id, parts });
            }
        }
        Ok(found)
    }

    async fn listed(&self, name: &str, id: &str) -> Result<BTreeMap<u32, Piece>, Refusal> {
        let listed = multipart::list(self.wire, name, id).await?.ok_or_else(unlisted)?;
        let piece = |Listed { number, tag, len }: Listed| {
            let len = len.ok_or_else(unlisted)?;
            Ok((number, Piece { tag, len }))
        };
        listed.into_iter().map(piece).collect()
    }
}

/// The server does not say what is needed.
pub(super) fn unlisted() -> Refusal {
    Trouble::new(
        Kind::Unfit,
        "the server does not list the parts of uploads with their tags and lengths",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Cut = Cut {
        direct: 2,
        per_segment: 3,
    };

    fn piece(len: u64) -> Piece {
        let tag = "tag".to_owned();
        Piece { tag, len }
    }

    /// Parts of 10 bytes: 0, 1 | 2 3 4 | 5 6 7 | 8 9 10 | 11 …
    fn known() -> Known {
        let open = |parts: &[u32]| Open {
            id: "id".to_owned(),
            parts: parts.iter().map(|part| (*part, piece(10))).collect(),
        };
        Known {
            pieces: BTreeMap::from([(1, piece(10)), (2, piece(30))]),
            open: BTreeMap::from([(2, open(&[0, 1, 2])), (3, open(&[0, 2])), (4, open(&[0]))]),
            made: BTreeMap::from([(1, 30)]),
        }
    }

    #[test]
    fn every_part_is_listed_wherever_it_is() {
        let numbers = |known: &Known| {
            known
                .parts(CUT, 10)
                .into_iter()
                .map(|part| part.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&known()), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]);
        let mut known = known();
        known.arrived(CUT, 0, piece(10));
        known.arrived(CUT, 12, piece(10));
        // There is no such segment any more, and none of another's is made of it.
        known.arrived(CUT, 7, piece(10));
        assert_eq!(numbers(&known), (0..=14).collect::<Vec<_>>());
        // The last segment is shorter.
        let short = Known {
            pieces: BTreeMap::from([(2, piece(30)), (3, piece(15))]),
            made: BTreeMap::from([(2, 1)]),
            ..Known::default()
        };
        assert_eq!(numbers(&short), [2, 3, 4, 5, 6, 8]);
    }

    #[test]
    fn a_segment_is_due_when_it_is_whole() {
        assert_eq!(known().due(CUT, None), [1, 2]);
        // 15 parts: the last one is the first of segment 4. Segment 3 misses one of its own.
        assert_eq!(known().due(CUT, Some(15)), [1, 2, 4]);
        assert_eq!(known().due(CUT, Some(16)), [1, 2]);
        assert_eq!(known().due(CUT, Some(5)), [1]);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (segments, key): (Segments, ObjectKey) = (Segments::default(), "a/disk".parse().unwrap());
        let (first, second) = (segments.entry(&key, "1"), segments.entry(&key, "2"));
        segments.forget(&key, Some("1"));
        assert!(!Arc::ptr_eq(&segments.entry(&key, "1"), &first));
        assert!(Arc::ptr_eq(&segments.entry(&key, "2"), &second));
        segments.forget(&key, None);
        assert!(!Arc::ptr_eq(&segments.entry(&key, "2"), &second));
    }
}
