//! Whether a bucket can be used, and how: every call is tried once on names of our own.

use reqwest::Method;
use vmferry_block::Buf;

use super::object::{self, delete_version, version_id};
use super::refusal::Refusal;
use super::small;
use super::upload::{Upload, Uploads};
use super::wire::Call;
use crate::web::Trouble;
use crate::{Error, Kind, ObjectKey, PartBody, Uploaded};

/// What the probes hold.
const TEXT: &str = "vmferry looks whether it can work here; this may be deleted\n";

/// What failed: the call in words, and why.
type Failed = (&'static str, Refusal);

/// Tries the bucket; gives what is worth telling, as short clauses. Leaves nothing behind.
pub(super) async fn check(uploads: &Uploads<'_>) -> Result<Vec<String>, Error> {
    let probe = Probe::new(uploads);
    let outcome = probe.run().await;
    // What failed first says more than what fails because of it.
    let swept = if matches!(outcome, Err(("use", _))) {
        Ok(())
    } else {
        probe.sweep().await
    };
    match (outcome, swept) {
        (Ok(clauses), Ok(())) => Ok(clauses),
        (Err((action, refusal)), _) | (Ok(_), Err((action, refusal))) => {
            Err(refusal.trouble.of(action, uploads.wire.place.describe()))
        }
    }
}

struct Probe<'a> {
    uploads: &'a Uploads<'a>,
    /// An object that is written at once.
    small: String,
    /// An object of one part.
    large: ObjectKey,
}

impl<'a> Probe<'a> {
    fn new(uploads: &'a Uploads<'a>) -> Self {
        let name = format!("vmferry-probe-{:016x}", rand::random::<u64>());
        Self {
            uploads,
            small: format!(".{name}"),
            large: name.parse().unwrap_or_else(|_| unreachable!("letters, digits and '-'")),
        }
    }

    async fn run(&self) -> Result<Vec<String>, Failed> {
        let lists = self.reach().await?;
        self.may_delete().await?;
        let versions = self.write_and_read().await?;
        let (is_listed, is_conditional) = self.upload().await?;
        let mut clauses = Vec::new();
        clauses.push(if is_listed {
            "an upload is taken up again from the server's list of its parts".to_owned()
        } else {
            "the server lists no parts: an upload is taken up again from vmferry's own list".to_owned()
        });
        clauses.push(self.uploads.manner.describe().to_owned());
        if !lists {
            clauses.push("the server lists no uploads: vmferry notes them down beside the object".to_owned());
        }
        if !is_conditional {
            clauses.push(
                "the server does not refuse by itself to overwrite an object: vmferry looks before it completes one"
                    .to_owned(),
            );
        }
        clauses.extend(versions);
        Ok(clauses)
    }

    /// Whether the server answers, knows the key and has the bucket; says whether it lists uploads.
    async fn reach(&self) -> Result<bool, Failed> {
        let wire = self.uploads.wire;
        let lists = self
            .uploads
            .ledger
            .is_the_servers(wire)
            .await
            .map_err(|refusal| ("use", refusal))?;
        if !lists {
            let call = Call::new(Method::HEAD, "", "s3:ListBucket");
            wire.call(&call).await.map_err(|refusal| ("use", refusal))?;
        }
        Ok(lists)
    }

    /// Asked first, on a name that nothing has: what cannot be deleted is better not written.
    async fn may_delete(&self) -> Result<(), Failed> {
        let (wire, name) = (self.uploads.wire, &self.small);
        let failed = |refusal| ("delete in", refusal);
        let call = Call::new(Method::DELETE, name, "s3:DeleteObject");
        let marker = match wire.call(&call).await {
            Ok(answer) => version_id(answer.headers()),
            Err(refusal) if refusal.trouble.kind == Kind::NotFound => None,
            Err(refusal) => return Err(failed(refusal)),
        };
        // A bucket that keeps versions put a marker there.
        match marker {
            Some(marker) => small::forget(wire, name, &marker).await.map_err(failed),
            None => Ok(()),
        }
    }

    /// Writes an object and reads a range of it; says what there is to say of versions.
    async fn write_and_read(&self) -> Result<Option<String>, Failed> {
        let (wire, name) = (self.uploads.wire, &self.small);
        let call = Call::new(Method::PUT, name, "s3:PutObject").text(TEXT);
        let answer = wire.call(&call).await.map_err(|refusal| ("write to", refusal))?;
        let version = version_id(answer.headers());
        let head = object::head(wire, name)
            .await
            .map_err(|refusal| ("read from", refusal))?;
        let unfit = |detail: &str| ("read from", Refusal::from(Trouble::new(Kind::Unfit, detail)));
        let head = head.ok_or_else(|| unfit("an object that was written just now is not there"))?;
        let mut bufs = [Buf::alone(TEXT.len() - 10)];
        let read = object::read(wire, name, &head.meta.version, 8, &mut bufs).await;
        read.map_err(|refusal| ("read from", refusal))?;
        if bufs[0][..] != TEXT.as_bytes()[8..TEXT.len() - 2] {
            return Err(unfit("what was read is not what was written"));
        }
        let Some(version) = version else { return Ok(None) };
        Ok(Some(self.try_versions(&version).await))
    }

    async fn try_versions(&self, version: &str) -> String {
        let call = Call::new(Method::DELETE, &self.small, "s3:DeleteObjectVersion").query("versionId", version);
        match self.uploads.wire.call(&call).await {
            Ok(_) => "the bucket keeps versions: vmferry deletes its own for good".to_owned(),
            Err(_) => {
                "the bucket keeps versions, and vmferry may not delete them: what it deletes still takes space; allow \
                       s3:DeleteObjectVersion, or let a lifecycle rule expire noncurrent versions"
                    .to_owned()
            }
        }
    }

    /// Uploads an object of one part, twice; says whether the server lists parts, and whether it refuses the second one.
    async fn upload(&self) -> Result<(bool, bool), Failed> {
        let (uploads, key) = (self.uploads, &self.large);
        let body = || PartBody::held([Buf::copy_of(TEXT.as_bytes())]);
        let size = TEXT.len() as u64;
        let failed = |refusal| ("upload to", refusal);
        let first = uploads.begin(key, size, size).await.map_err(failed)?;
        let part = uploads.put_part(key, &first, 0, body()).await.map_err(failed)?;
        let listed = uploads
            .parts(key, &first)
            .await
            .map_err(|refusal| ("list parts in", refusal))?;
        let is_listed = match listed {
            Uploaded::Parts(parts) => parts == [part.clone()],
            Uploaded::Unlisted => false,
            Uploaded::Gone => return Err(failed(Trouble::new(Kind::Unfit, "an upload is gone at once").into())),
        };
        uploads.complete(key, &first, size, &[part]).await.map_err(failed)?;
        let second = uploads.begin(key, size, size).await.map_err(failed)?;
        let part = uploads.put_part(key, &second, 0, body()).await.map_err(failed)?;
        let upload = Upload::parse(&second.0).ok_or_else(|| failed(Trouble::new(Kind::Bug, "no upload").into()))?;
        let is_conditional = uploads.is_refused(key, &upload, &[part]).await.map_err(failed)?;
        Ok((is_listed, is_conditional))
    }

    /// Removes everything.
    async fn sweep(&self) -> Result<(), Failed> {
        let wire = self.uploads.wire;
        let aborted = self.uploads.abort(&self.large).await;
        let failed = |refusal| ("delete in", refusal);
        let mut outcome = aborted.map_err(|refusal| ("abort uploads in", refusal));
        for name in [self.large.as_str(), &self.small] {
            // A server that ignores conditions made two versions of it.
            for _ in 0..2 {
                let deleted = match object::head(wire, name).await {
                    Ok(Some(head)) => delete_version(wire, name, head.version_id.as_deref()).await,
                    Ok(None) => break,
                    Err(refusal) => Err(refusal),
                };
                outcome = outcome.and(deleted.map_err(failed));
            }
        }
        outcome
    }
}
