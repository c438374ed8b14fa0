//! Whether a server joins segments: tried once with a few bytes, before there are terabytes.

use vmferry_block::Buf;

use super::super::multipart;
use super::super::object::{self, delete_version};
use super::super::refusal::Refusal;
use super::super::small;
use super::super::upload::Uploads;
use super::super::xml;
use super::folder_of;
use super::known::unlisted;
use crate::web::Trouble;
use crate::{Kind, ObjectKey, Part};

/// What is copied.
const TEXT: &str = "vmferry looks whether the server copies parts; this may be deleted\n";

impl Uploads<'_> {
    /// Finds out whether segments can be joined, unless that is known; says whether uploads of them are begun with checksums. What is
    /// tried stands below the segments' names, so that whatever a crash leaves is found.
    ///
    /// # Errors
    /// [`Kind::Unfit`] for a server that cannot.
    pub(in super::super) async fn may_join(&self, key: &ObjectKey, mark: &str) -> Result<bool, Refusal> {
        let ask = || async {
            if !self.ledger.is_the_servers(self.wire).await? {
                let words = "it does not list uploads under way, or not to this key (s3:ListBucketMultipartUploads)";
                return Err(unfit(words));
            }
            let tried = self.try_joining(key, mark).await;
            let swept = self.sweep(&folder_of(key, mark)).await;
            let has_checksums = tried.map_err(|refusal| match refusal.trouble.kind {
                Kind::Unfit | Kind::Invalid | Kind::NotFound | Kind::Bug | Kind::UploadGone => {
                    unfit(&refusal.trouble.detail)
                }
                _ => refusal,
            })?;
            swept.and(Ok(has_checksums))
        };
        self.segments.joins.get_or_try_init(ask).await.copied()
    }

    async fn try_joining(&self, key: &ObjectKey, mark: &str) -> Result<bool, Refusal> {
        let folder = folder_of(key, mark);
        let source = format!("{folder}probe");
        small::write(self.wire, &source, TEXT).await?;
        if !self.manner.has_checksums() {
            return self.try_once(&folder, &source, mark, false).await;
        }
        match self.try_once(&folder, &source, mark, true).await {
            Err(refusal) if refusal.status.is_some() && refusal.trouble.kind != Kind::Denied => {
                tracing::debug!("the server copies no parts with checksums: {}", refusal.trouble.detail);
                self.try_once(&folder, &source, mark, false).await
            }
            tried => tried,
        }
    }

    async fn try_once(&self, folder: &str, source: &str, mark: &str, has_checksums: bool) -> Result<bool, Refusal> {
        let name = format!("{folder}probe-copy");
        let len = TEXT.len() as u64;
        let id = multipart::create(self.wire, &name, mark, has_checksums).await?;
        let tag = self.copy(&name, &id, 0, source, None, len).await?;
        let listed = multipart::list(self.wire, &name, &id).await?.ok_or_else(unlisted)?;
        if listed.iter().map(|part| part.len).ne([Some(len)]) {
            return Err(unlisted());
        }
        let call = multipart::completion(&name, &id, &[Part { number: 0, tag }]);
        self.wire.call_text(&call, xml::LONGEST).await?;
        let wrong = || Trouble::new(Kind::Unfit, "what it copied is not what there was");
        let head = object::head(self.wire, &name).await?.ok_or_else(wrong)?;
        let mut bufs = [Buf::alone(TEXT.len())];
        object::read(self.wire, &name, &head.meta.version, 0, &mut bufs).await?;
        if bufs[0][..] != *TEXT.as_bytes() || head.meta.len != len || head.mark.as_deref() != Some(mark) {
            return Err(wrong().into());
        }
        delete_version(self.wire, &name, head.version_id.as_deref()).await?;
        Ok(has_checksums)
    }
}

fn unfit(detail: &str) -> Refusal {
    let detail = format!(
        "it may have more parts than a server takes, and this one cannot join it out of segments (UploadPartCopy): {detail}"
    );
    Trouble::new(Kind::Unfit, detail)
        .remedy("use an S3 server that lists uploads and copies parts, another staging storage, or another format")
        .into()
}
