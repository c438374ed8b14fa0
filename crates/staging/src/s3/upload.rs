//! Multipart uploads.

use std::fmt;

use super::ledger::Ledger;
use super::manner::Manner;
use super::multipart::{self, Listed, Multipart};
use super::object;
use super::part;
use super::refusal::Refusal;
use super::segments::{Cut, Segments, Shape};
use super::wire::Wire;
use super::xml;
use crate::web::Trouble;
use crate::{Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};
/// Rounds of aborting: a part that arrives during an abort can outlive it. AWS S3, `AbortMultipartUpload`.
pub(super) const ROUNDS: usize = 5;

/// What is behind an [`UploadId`]: the server's id, and what every process must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    /// A random number that the object bears, too: by it an object is known to have come from this upload.
    pub(super) mark: String,
    pub(super) part_size: u64,
    /// Where parts go which are too many for the server.
    pub(super) cut: Option<Cut>,
    /// Whether the server was told that parts come with a checksum.
    pub(super) has_checksums: bool,
    /// The server's own id.
    pub(super) id: String,
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mark, part_size, id, ..
        } = self;
        let sums = if self.has_checksums { 'c' } else { 'p' };
        write!(f, "{mark}:{part_size:x}")?;
        if let Some(Cut { direct, per_segment }) = self.cut {
            write!(f, "+{direct:x}+{per_segment:x}")?;
        }
        write!(f, ":{sums}:{id}")
    }
}

impl Upload {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ':');
        let (mark, sizes, sums, id) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_mark = mark.len() == 16 && mark.chars().all(|c| c.is_ascii_hexdigit());
        let (part_size, cut) = match sizes.split_once('+') {
            Some((part_size, cut)) => (part_size, Some(Cut::parse(cut)?)),
            None => (sizes, None),
        };
        let part_size = u64::from_str_radix(part_size, 16).ok()?;
        (is_mark && part_size > 0 && matches!(sums, "c" | "p") && !id.is_empty()).then(|| Self {
            mark: mark.to_owned(),
            part_size,
            cut,
            has_checksums: sums == "c",
            id: id.to_owned(),
        })
    }

    /// The server's upload of the object itself.
    pub(super) fn multipart<'a>(&'a self, key: &'a ObjectKey) -> Multipart<'a> {
        Multipart {
            name: key.as_str(),
            id: &self.id,
            has_checksums: self.has_checksums,
        }
    }
}

/// The uploads of one store.
#[derive(Debug)]
pub(super) struct Uploads<'a> {
    pub(super) wire: &'a Wire,
    pub(super) ledger: &'a Ledger,
    pub(super) manner: &'a Manner,
    pub(super) segments: &'a Segments,
    pub(super) shape: Shape,
}

impl Uploads<'_> {
    pub(super) async fn begin(&self, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Refusal> {
        let mark = format!("{:016x}", rand::random::<u64>());
        let cut = self.shape.cut(most, part_size)?;
        let (id, has_checksums) = match cut {
            Some(_) => {
                let has_checksums = self.may_join(key, &mark).await?;
                let id = multipart::create(self.wire, key.as_str(), &mark, has_checksums).await?;
                (id, has_checksums)
            }
            None => multipart::begin(self.wire, self.manner, key.as_str(), &mark).await?,
        };
        self.ledger.add(self.wire, key, &id).await?;
        let upload = Upload {
            mark,
            part_size,
            cut,
            has_checksums,
            id,
        };
        Ok(UploadId(upload.to_string()))
    }

    pub(super) async fn parts(&self, key: &ObjectKey, id: &UploadId) -> Result<Uploaded, Refusal> {
        let Some(upload) = Upload::parse(&id.0) else {
            return Ok(Uploaded::Gone);
        };
        if self.ledger.has(self.wire, key, &upload.id).await? == Some(false) {
            return Ok(Uploaded::Gone);
        }
        let listed = match upload.cut {
            Some(cut) => self.look_up(key, &upload, cut).await.map(Some),
            None => multipart::list(self.wire, key.as_str(), &upload.id).await.map(plain),
        };
        match listed {
            Ok(parts) => Ok(parts.map_or(Uploaded::Unlisted, Uploaded::Parts)),
            Err(refusal) if matches!(refusal.trouble.kind, Kind::UploadGone | Kind::NotFound) => Ok(Uploaded::Gone),
            Err(refusal) if refusal.is_unsupported() => Ok(Uploaded::Unlisted),
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) async fn put_part(
        &self,
        key: &ObjectKey,
        id: &UploadId,
        number: u32,
        body: PartBody,
    ) -> Result<Part, Refusal> {
        let upload = Upload::parse(&id.0).ok_or_else(gone)?;
        if let Some(cut) = upload.cut {
            return self.put_somewhere(key, &upload, cut, number, body).await;
        }
        match part::put(self.wire, self.manner, &upload.multipart(key), number, body).await {
            Ok(tag) => Ok(Part { number, tag }),
            Err(refusal) => Err(self.explain(key, &upload, refusal).await),
        }
    }

    /// A server that lists no uploads may not say of one that it is gone, either.
    pub(super) async fn explain(&self, key: &ObjectKey, upload: &Upload, refusal: Refusal) -> Refusal {
        if matches!(refusal.trouble.kind, Kind::NotFound) {
            return gone();
        }
        let unclear = matches!(refusal.status.map(|status| status.as_u16()), Some(400 | 403));
        if unclear && matches!(self.ledger.has(self.wire, key, &upload.id).await, Ok(Some(false))) {
            return gone();
        }
        refusal
    }

    pub(super) async fn complete(
        &self,
        key: &ObjectKey,
        id: &UploadId,
        len: u64,
        parts: &[Part],
    ) -> Result<ObjectMeta, Refusal> {
        let upload = Upload::parse(&id.0).ok_or_else(gone)?;
        let parts = in_order(parts, len, upload.part_size)?;
        // Not every server heeds the condition of the call, and an answer may have been lost the last time.
        let meta = match self.finished(key, &upload).await? {
            Some(meta) => meta,
            None => match upload.cut {
                Some(cut) => {
                    let parts = self.join_all(key, &upload, cut, len).await?;
                    self.join(key, &upload, &parts).await?
                }
                None => self.join(key, &upload, &parts).await?,
            },
        };
        if meta.len != len {
            self.discard(key).await?;
            let detail = format!("the object has {} bytes instead of {len}", meta.len);
            return Err(Trouble::new(Kind::Unfit, detail).into());
        }
        self.ledger.remove(self.wire, key, &upload.id).await?;
        self.segments.forget(key, Some(&upload.id));
        Ok(meta)
    }

    /// The object, if it came from this upload; [`NameTaken`](Kind::NameTaken) if from elsewhere.
    pub(super) async fn finished(&self, key: &ObjectKey, upload: &Upload) -> Result<Option<ObjectMeta>, Refusal> {
        match object::head(self.wire, key.as_str()).await? {
            Some(head) if head.mark.as_deref() == Some(&upload.mark) => Ok(Some(head.meta)),
            Some(_) => Err(taken().into()),
            None => Ok(None),
        }
    }

    async fn join(&self, key: &ObjectKey, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta, Refusal> {
        let call = multipart::completion(key.as_str(), &upload.id, parts);
        let mut joined = self
            .wire
            .call_text(&call.clone().header("if-none-match", "*"), xml::LONGEST)
            .await;
        if joined.as_ref().is_err_and(|refusal| refusal.code == "NotImplemented") {
            joined = self.wire.call_text(&call, xml::LONGEST).await;
        }
        // Whatever was answered: the object tells whether it is ours.
        match (self.finished(key, upload).await, joined) {
            (Ok(Some(meta)), _) => Ok(meta),
            (Err(refusal), _) => Err(refusal),
            (Ok(None), Err(refusal)) => Err(self.explain(key, upload, refusal).await),
            (Ok(None), Ok(_)) => {
                Err(Trouble::new(Kind::Unfit, "the server completed the upload, and there is no object").into())
            }
        }
    }

    /// Whether the server itself refuses to complete onto an object that is there. Where it does not, the object is replaced.
    pub(super) async fn is_refused(&self, key: &ObjectKey, upload: &Upload, parts: &[Part]) -> Result<bool, Refusal> {
        let call = multipart::completion(key.as_str(), &upload.id, parts).header("if-none-match", "*");
        match self.wire.call_text(&call, xml::LONGEST).await {
            Ok(_) => {
                self.ledger.remove(self.wire, key, &upload.id).await?;
                Ok(false)
            }
            Err(refusal) if refusal.code == "NotImplemented" => Ok(false),
            Err(refusal) if refusal.trouble.kind == Kind::Changed => Ok(true),
            Err(refusal) => Err(refusal),
        }
    }

    /// Deletes an object of the wrong length that came from our own upload.
    async fn discard(&self, key: &ObjectKey) -> Result<(), Refusal> {
        object::delete(self.wire, key.as_str()).await
    }

    pub(super) async fn abort(&self, key: &ObjectKey) -> Result<(), Refusal> {
        for _ in 0..ROUNDS {
            let uploads = self.ledger.uploads(self.wire, key).await?;
            if uploads.is_empty() {
                break;
            }
            for id in uploads {
                self.abort_one(key, &id).await?;
            }
        }
        self.segments.forget(key, None);
        // Only now: whoever begins a segment looks afterwards whether its upload is still there.
        self.discard_segments(key).await
    }

    async fn abort_one(&self, key: &ObjectKey, id: &str) -> Result<(), Refusal> {
        let is_ours = self.ledger.is_the_servers(self.wire).await?;
        match multipart::abort(self.wire, key.as_str(), id).await {
            // What stands in our own list may be over: such a server refuses it with any words.
            Err(refusal) if !is_ours && matches!(refusal.status.map(|status| status.as_u16()), Some(400 | 403)) => {}
            aborted => aborted?,
        }
        self.ledger.remove(self.wire, key, id).await
    }
}

fn plain(listed: Option<Vec<Listed>>) -> Option<Vec<Part>> {
    Some(listed?.into_iter().map(Listed::part).collect())
}

/// The parts as they follow one another, all of them.
fn in_order(parts: &[Part], len: u64, part_size: u64) -> Result<Vec<Part>, Refusal> {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|part| part.number);
    parts.dedup_by_key(|part| part.number);
    let is_whole = (0..).zip(&parts).all(|(number, part): (u32, _)| part.number == number);
    if is_whole && parts.len() as u64 == len.div_ceil(part_size) {
        return Ok(parts);
    }
    let detail = format!(
        "{} parts of {part_size} bytes do not make up {len} bytes, or one of them is missing",
        parts.len()
    );
    Err(Trouble::new(Kind::Bug, detail).into())
}

pub(super) fn gone() -> Refusal {
    Trouble::new(
        Kind::UploadGone,
        "there is no such upload: it was completed or aborted, or it expired",
    )
    .into()
}

fn taken() -> Trouble {
    Trouble::new(
        Kind::NameTaken,
        "an object of that name is there already, and not from this upload",
    )
    .remedy("remove it, or give the migration another name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_went() {
        let upload = Upload {
            mark: "0123456789abcdef".to_owned(),
            part_size: 5 << 20,
            cut: None,
            has_checksums: true,
            id: "2~a:b+c_c.d".to_owned(),
        };
        assert_eq!(Upload::parse(&upload.to_string()).as_ref(), Some(&upload));
        let cut = Some(Cut {
            direct: 9_000,
            per_segment: 64,
        });
        let upload = Upload { cut, ..upload };
        assert_eq!(Upload::parse(&upload.to_string()), Some(upload));
        for bad in [
            "",
            "no-such-upload",
            "0123456789abcdef:500000:x:id",
            "0123456789abcdef:0:c:id",
            "0123456789abcdef:1+2:c:id",
            "0123456789abcdef:1+2+0:c:id",
            "0123456789abcdef:1:c:",
            "x:1:c:id",
        ] {
            assert_eq!(Upload::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_missing_part_is_noticed() {
        let part = |number| Part {
            number,
            tag: String::new(),
        };
        assert_eq!(in_order(&[part(1), part(0), part(1)], 15, 10).unwrap().len(), 2);
        for parts in [
            &[part(0), part(2)][..],
            &[part(0)],
            &[part(0), part(1), part(2)],
            &[part(1)],
            &[],
        ] {
            assert_eq!(in_order(parts, 15, 10).unwrap_err().trouble.kind, Kind::Bug);
        }
    }
}
