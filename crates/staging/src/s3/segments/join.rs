//! Making segments parts of their object.

use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use reqwest::Method;

use super::super::ledger;
use super::super::multipart;
use super::super::object::{self, delete_version};
use super::super::refusal::Refusal;
use super::super::small;
use super::super::upload::{ROUNDS, Upload, Uploads, gone};
use super::super::wire::Call;
use super::super::xml::{self, Copied};
use super::cut::Cut;
use super::known::{Entry, Piece};
use super::{folder, folder_of, name_of};
use crate::web::Trouble;
use crate::{Kind, ObjectKey, Part, UploadId};

/// Segments that are joined at once: a server copies one of them on few of its disks.
const AT_ONCE: usize = 4;
/// How often whoever waits gives a sign of life. Each call has a limit of its own.
const SIGN: Duration = Duration::from_secs(1);
/// What a server copies in a second at the least, in bytes.
const SLOWEST: u64 = 4 << 20;

impl Uploads<'_> {
    /// Joins the segments that are whole; of an object of `len` bytes all of them.
    pub(in super::super) async fn settle(
        &self,
        key: &ObjectKey,
        id: &UploadId,
        len: Option<u64>,
        alive: &(dyn Fn() + Send + Sync),
    ) -> Result<(), Refusal> {
        let upload = Upload::parse(&id.0).ok_or_else(gone)?;
        let Some(cut) = upload.cut else { return Ok(()) };
        if len.is_some() && self.finished(key, &upload).await?.is_some() {
            return Ok(());
        }
        let entry = self.segments.entry(key, &upload.id);
        let _alone = entry.joining.lock().await;
        let due = {
            let mut known = entry.lock().await;
            let known = self.known(&mut known, key, &upload).await?;
            known.due(cut, len.map(|len| count(len, upload.part_size)))
        };
        let (entry, upload) = (&entry, &upload);
        let joins = due
            .into_iter()
            .map(|segment| self.join_one(entry, key, upload, cut, segment).boxed());
        let mut joins = stream::iter(joins.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let (mut sign, mut outcome) = (tokio::time::interval(SIGN), Ok(()));
        loop {
            tokio::select! {
                joined = joins.next() => match joined {
                    // Where one fails, the others still come to their end: each leaves things in order.
                    Some(joined) => outcome = outcome.and(joined),
                    None => return outcome,
                },
                _ = sign.tick() => alive(),
            }
        }
    }

    /// One segment: its parts become an object, that a part of the whole object, and it is deleted. Each of these steps may have been done
    /// before.
    async fn join_one(
        &self,
        entry: &Entry,
        key: &ObjectKey,
        upload: &Upload,
        cut: Cut,
        segment: u32,
    ) -> Result<(), Refusal> {
        let name = name_of(key, &upload.mark, segment);
        let open = {
            let known = entry.lock().await;
            known.as_ref().and_then(|known| known.open.get(&segment).cloned())
        };
        let mut made = Ok(String::new());
        if let Some(open) = &open {
            let part = |(number, piece): (&u32, &Piece)| Part {
                number: *number,
                tag: piece.tag.clone(),
            };
            let parts: Vec<_> = open.parts.iter().map(part).collect();
            let call = multipart::completion(&name, &open.id, &parts);
            made = self.wire.call_text(&call, xml::LONGEST).await;
        }
        // Whatever was answered: the object tells.
        let head = match object::head(self.wire, &name).await? {
            Some(head) if head.mark.as_deref() == Some(&upload.mark) => head,
            _ => {
                // What was known is not so: it is found out anew.
                *entry.lock().await = None;
                return Err(made.err().unwrap_or_else(gone));
            }
        };
        let len = head.meta.len;
        if open.as_ref().is_some_and(|open| open.len() != len) {
            let detail = format!(
                "a segment has {len} bytes instead of {}",
                open.map_or(0, |open| open.len())
            );
            return Err(Trouble::new(Kind::Unfit, detail).into());
        }
        if let Some(known) = &mut *entry.lock().await {
            known.open.remove(&segment);
            known.made.insert(segment, len);
        }
        let version = head.version_id.as_deref();
        let tag = match self
            .copy(key.as_str(), &upload.id, cut.piece(segment), &name, version, len)
            .await
        {
            Ok(tag) => tag,
            Err(refusal) => {
                let refusal = self.explain(key, upload, refusal).await;
                if refusal.trouble.kind == Kind::UploadGone {
                    // Whoever ended the upload may have looked for its segments before this one was there.
                    delete_version(self.wire, &name, version).await?;
                }
                return Err(refusal);
            }
        };
        if let Some(known) = &mut *entry.lock().await {
            known.made.remove(&segment);
            known.pieces.insert(cut.piece(segment), Piece { tag, len });
        }
        delete_version(self.wire, &name, version).await
    }

    /// Has the server copy an object of `len` bytes into an upload as its part `number`; gives the part's tag.
    pub(super) async fn copy(
        &self,
        name: &str,
        id: &str,
        number: u32,
        source: &str,
        version: Option<&str>,
        len: u64,
    ) -> Result<String, Refusal> {
        let number = (u64::from(number) + 1).to_string();
        let patience = Duration::from_mins(1) + Duration::from_secs(len / SLOWEST);
        let call = Call::new(Method::PUT, name, "s3:PutObject and s3:GetObject")
            .query("partNumber", &number)
            .query("uploadId", id)
            .header("x-amz-copy-source", self.wire.place.copy_source(source, version))
            .patience(patience);
        let copied: Copied = self.wire.call_xml(&call).await?;
        Ok(object::plain_tag(&copied.tag))
    }

    /// Joins all that there is of an object of `len` bytes, and removes what is left of its segments; gives the parts that it is made of.
    pub(in super::super) async fn join_all(
        &self,
        key: &ObjectKey,
        upload: &Upload,
        cut: Cut,
        len: u64,
    ) -> Result<Vec<Part>, Refusal> {
        self.settle(key, &UploadId(upload.to_string()), Some(len), &|| {})
            .await?;
        let entry = self.segments.entry(key, &upload.id);
        let pieces = {
            let mut known = entry.lock().await;
            self.known(&mut known, key, upload).await?.pieces.clone()
        };
        let count = cut.pieces(count(len, upload.part_size));
        let sum: u64 = pieces.values().map(|piece| piece.len).sum();
        if !pieces.keys().copied().eq(0..count) || sum != len {
            let detail = format!(
                "{} of {count} parts are there, of {sum} bytes in all instead of {len}",
                pieces.len()
            );
            return Err(Trouble::new(Kind::Unfit, detail).into());
        }
        self.sweep(&folder_of(key, &upload.mark)).await?;
        let part = |(number, Piece { tag, .. })| Part { number, tag };
        Ok(pieces.into_iter().map(part).collect())
    }

    /// Removes all segments of a key.
    pub(in super::super) async fn discard_segments(&self, key: &ObjectKey) -> Result<(), Refusal> {
        self.sweep(&folder(key)).await
    }

    /// Removes the segments of a folder: uploads and objects. Servers that keep no lists have none.
    pub(super) async fn sweep(&self, folder: &str) -> Result<(), Refusal> {
        if !self.ledger.is_the_servers(self.wire).await? {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let uploads = ledger::listed(self.wire, folder).await?;
            for listed in &uploads {
                multipart::abort(self.wire, &listed.key, &listed.upload_id).await?;
            }
            let objects = match small::list(self.wire, folder).await {
                Err(refusal) if refusal.is_unsupported() || refusal.trouble.kind == Kind::NotFound => return Ok(()),
                objects => objects?,
            };
            for object in &objects {
                object::delete(self.wire, &object.key).await?;
            }
            if uploads.is_empty() && objects.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// How many parts an object has.
fn count(len: u64, part_size: u64) -> u32 {
    u32::try_from(len.div_ceil(part_size)).unwrap_or(u32::MAX)
}
