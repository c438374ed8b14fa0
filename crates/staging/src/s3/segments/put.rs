//! Putting a part where it belongs.

use super::super::multipart::{self, Multipart};
use super::super::part;
use super::super::refusal::Refusal;
use super::super::upload::{Upload, Uploads};
use super::cut::{Cut, Place};
use super::known::{Entry, Open, Piece};
use super::name_of;
use crate::{ObjectKey, Part, PartBody};

impl Uploads<'_> {
    /// Stores a part of an upload in segments.
    pub(in super::super) async fn put_somewhere(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        cut: Cut,
        number: u32,
        body: PartBody,
    ) -> Result<Part, Refusal> {
        let (entry, len) = (self.segments.entry(key, &upload.id), body.len());
        let tag = match cut.place(number) {
            Place::Direct => part::put(self.wire, self.manner, &upload.multipart(key), number, body).await,
            Place::Segment { segment, part } => {
                let name = name_of(key, &upload.mark, segment);
                match self.open(&entry, key, upload, cut, segment).await {
                    Ok(Some(id)) => {
                        let multipart = Multipart {
                            name: &name,
                            id: &id,
                            has_checksums: upload.has_checksums,
                        };
                        part::put(self.wire, self.manner, &multipart, part, body).await
                    }
                    // It arrived before, with its whole segment.
                    Ok(None) => return Ok(listed(number)),
                    Err(refusal) => Err(refusal),
                }
            }
        };
        let tag = match tag {
            Ok(tag) => tag,
            Err(refusal) => return Err(self.explain(key, upload, refusal).await),
        };
        let mut known = entry.lock().await;
        let known = self.known(&mut known, key, upload).await?;
        known.arrived(cut, number, Piece { tag, len });
        Ok(listed(number))
    }

    /// The id of a segment's upload, which is begun if there is none yet; `None` where the segment is whole already.
    async fn open(
        &self,
        entry: &Entry,
        key: &ObjectKey,
        upload: &Upload,
        cut: Cut,
        segment: u32,
    ) -> Result<Option<String>, Refusal> {
        let mut known = entry.lock().await;
        let known = self.known(&mut known, key, upload).await?;
        if known.made.contains_key(&segment) || known.pieces.contains_key(&cut.piece(segment)) {
            return Ok(None);
        }
        if let Some(open) = known.open.get(&segment) {
            return Ok(Some(open.id.clone()));
        }
        let name = name_of(key, &upload.mark, segment);
        let id = multipart::create(self.wire, &name, &upload.mark, upload.has_checksums).await?;
        // An abort that was over before would not have seen it.
        if let Err(refusal) = multipart::find(self.wire, key.as_str(), &upload.id).await {
            multipart::abort(self.wire, &name, &id).await?;
            return Err(refusal);
        }
        let open = Open {
            id: id.clone(),
            parts: [].into(),
        };
        known.open.insert(segment, open);
        Ok(Some(id))
    }
}

fn listed(number: u32) -> Part {
    let tag = String::new();
    Part { number, tag }
}
