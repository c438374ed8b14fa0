//! Whole objects: what there is, reading, deleting.

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap};
use reqwest::{Method, StatusCode};
use vmferry_block::Buf;

use super::refusal::Refusal;
use super::wire::{Call, Wire};
use crate::web::{Answer, Trouble};
use crate::{Kind, ObjectMeta};

/// The mark of the upload that an object came from, as metadata of the object.
pub(super) const MARK: &str = "x-amz-meta-vmferry-upload";
/// The id of a version, in buckets that keep versions.
pub(super) const VERSION_ID: &str = "x-amz-version-id";
/// Failures in a row without a byte in between, at most, until a read is given up.
const TRIES: u32 = 5;
/// Failures of one read at most.
const ALL_TRIES: u32 = 30;

/// An object as its head describes it.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) meta: ObjectMeta,
    /// The mark of the upload that it came from.
    pub(super) mark: Option<String>,
    /// The id of its version, in buckets that keep versions.
    pub(super) version_id: Option<String>,
}

pub(super) async fn head(wire: &Wire, name: &str) -> Result<Option<Head>, Refusal> {
    let answer = match wire
        .call(&Call::new(Method::HEAD, name, "s3:GetObject and s3:ListBucket"))
        .await
    {
        Ok(answer) => answer,
        Err(refusal) if refusal.trouble.kind == Kind::NotFound => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let headers = answer.headers();
    let len = number(headers, CONTENT_LENGTH.as_str());
    let (Some(len), Some(tag)) = (len, tag(headers)) else {
        let unfit = Trouble::new(
            Kind::Unfit,
            "the server says neither how long the object is nor its ETag",
        );
        return Err(unfit.remedy("check that spec.storage.endpoint is an S3 server").into());
    };
    let version_id = version_id(headers);
    let version = Version {
        tag,
        id: version_id.clone(),
    };
    Ok(Some(Head {
        meta: ObjectMeta {
            len,
            version: version.to_string(),
        },
        mark: text(headers, MARK),
        version_id,
    }))
}

/// Fills `bufs` from `offset` of the object with this version. A connection that breaks is made again, and what came is kept.
pub(super) async fn read(wire: &Wire, name: &str, version: &str, offset: u64, bufs: &mut [Buf]) -> Result<(), Refusal> {
    let version = Version::parse(version);
    let all: usize = bufs.iter().map(|buf| buf.len()).sum();
    let (mut at, mut idle, mut failures) = (0, 0, 0);
    while at < all {
        let range = Range {
            first: offset + at as u64,
            end: offset + all as u64,
        };
        let answer = open(wire, name, &version, range).await?;
        let (filled, outcome) = answer.fill(bufs, at).await;
        let Err(trouble) = outcome else { break };
        failures += 1;
        idle = if filled > at { 1 } else { idle + 1 };
        at = filled;
        if trouble.kind != Kind::Unreachable || idle >= TRIES || failures >= ALL_TRIES {
            return Err(trouble.into());
        }
        tracing::debug!(
            offset = offset + at as u64,
            "a read is taken up again: {}",
            trouble.detail
        );
        tokio::time::sleep(std::time::Duration::from_millis(100 << idle)).await;
    }
    Ok(())
}

/// The answer that holds exactly this range of this version.
async fn open(wire: &Wire, name: &str, version: &Version, range: Range) -> Result<Answer, Refusal> {
    let call = Call::new(Method::GET, name, "s3:GetObject")
        .header("range", format!("bytes={}-{}", range.first, range.end - 1))
        .header("if-match", version.quoted());
    let answer = match wire.call(&call).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(not_read(wire, name, version, range, refusal).await),
    };
    let headers = answer.headers();
    let changed = tag(headers).is_some_and(|tag| tag != version.tag)
        || version_id(headers).is_some_and(|id| version.id.as_ref().is_some_and(|ours| *ours != id));
    if changed {
        return Err(changed_trouble().into());
    }
    let unfit = |detail: String| {
        Trouble::new(Kind::Unfit, detail).remedy("use a server, and proxies before it, that answer ranges as asked")
    };
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Err(unfit(format!(
            "the server ignores the range that it is asked for and answers {}",
            answer.status()
        ))
        .into());
    }
    let given = text(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
    if let Some(len) = range.is_cut_by(&given) {
        return Err(past_end(range, len).into());
    }
    let said = number(headers, CONTENT_LENGTH.as_str());
    if !range.is(&given) || said.is_some_and(|said| said != range.end - range.first) {
        let said = said.map_or_else(|| "an unknown number of".to_owned(), |said| said.to_string());
        return Err(unfit(format!(
            "bytes {}-{} were asked for, and the server answers with {said} bytes as {given:?}",
            range.first,
            range.end - 1
        ))
        .into());
    }
    Ok(answer)
}

async fn not_read(wire: &Wire, name: &str, version: &Version, range: Range, refusal: Refusal) -> Refusal {
    match refusal.status.map(|status| status.as_u16()) {
        Some(404 | 412) => changed_trouble().into(),
        // Past the end: of ours, or of one that took its place at a server that does not know If-Match.
        Some(416) => match head(wire, name).await {
            Ok(Some(head)) if head.meta.version == version.to_string() => past_end(range, head.meta.len).into(),
            Ok(_) => changed_trouble().into(),
            Err(refusal) => refusal,
        },
        _ => refusal,
    }
}

fn changed_trouble() -> Trouble {
    Trouble::new(Kind::Changed, "it was deleted or replaced while it was read")
}

fn past_end(range: Range, len: u64) -> Trouble {
    let end = range.end;
    Trouble::new(Kind::Bug, format!("bytes up to {end} were asked for, and it has {len}"))
}

/// Deletes the object, and in a bucket that keeps versions the version that is there, so that none and no marker stay.
pub(super) async fn delete(wire: &Wire, name: &str) -> Result<(), Refusal> {
    let Some(head) = head(wire, name).await? else {
        return Ok(());
    };
    delete_version(wire, name, head.version_id.as_deref()).await
}

/// Deletes one version for good. Who may not do that hides the object behind a delete marker.
pub(super) async fn delete_version(wire: &Wire, name: &str, version_id: Option<&str>) -> Result<(), Refusal> {
    let plain = Call::new(Method::DELETE, name, "s3:DeleteObject");
    let Some(id) = version_id else {
        return existing(wire.call(&plain).await);
    };
    let exact = Call::new(Method::DELETE, name, "s3:DeleteObjectVersion").query("versionId", id);
    match existing(wire.call(&exact).await) {
        Err(refusal) if refusal.is_unsupported() => {
            tracing::warn!(
                object = name,
                "its version stays in the bucket: {}",
                refusal.trouble.detail
            );
            existing(wire.call(&plain).await)
        }
        outcome => outcome,
    }
}

/// What is not there is deleted.
fn existing(outcome: Result<Answer, Refusal>) -> Result<(), Refusal> {
    match outcome {
        Err(refusal) if refusal.trouble.kind != Kind::NotFound => Err(refusal),
        _ => Ok(()),
    }
}

/// A version in words: the ETag, and the id where there is one.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    tag: String,
    id: Option<String>,
}

impl Version {
    fn parse(text: &str) -> Self {
        match text.split_once(' ') {
            Some((tag, id)) => Self {
                tag: tag.to_owned(),
                id: Some(id.to_owned()),
            },
            None => Self {
                tag: text.to_owned(),
                id: None,
            },
        }
    }

    fn quoted(&self) -> String {
        if self.tag.starts_with("W/") {
            self.tag.clone()
        } else {
            format!("\"{}\"", self.tag)
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.tag)?;
        match &self.id {
            Some(id) => write!(f, " {id}"),
            None => Ok(()),
        }
    }
}

/// Bytes from `first` up to but without `end`.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u64,
    end: u64,
}

impl Range {
    /// Whether a `Content-Range` is this range. RFC 9110, section 14.4.
    fn is(self, given: &str) -> bool {
        parse_range(given).is_some_and(|(first, last, _)| first == self.first && last.checked_add(1) == Some(self.end))
    }

    /// The length of the object, where a `Content-Range` is this range as far as the object goes.
    fn is_cut_by(self, given: &str) -> Option<u64> {
        let (first, last, len) = parse_range(given)?;
        let len = len.filter(|len| *len < self.end)?;
        (first == self.first && last.checked_add(1) == Some(len)).then_some(len)
    }
}

/// First and last byte, and the length of the whole where it is known.
fn parse_range(given: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, len) = given.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, len.parse().ok()))
}

/// The ETag without its quotes.
pub(super) fn tag(headers: &HeaderMap) -> Option<String> {
    text(headers, ETAG.as_str())
        .map(|tag| plain_tag(&tag))
        .filter(|tag| !tag.is_empty() && !tag.contains(' '))
}

pub(super) fn plain_tag(tag: &str) -> String {
    if tag.starts_with("W/") {
        tag.to_owned()
    } else {
        tag.trim_matches('"').to_owned()
    }
}

/// The version's id; a bucket that keeps none, or did not yet, says nothing or `null`.
pub(super) fn version_id(headers: &HeaderMap) -> Option<String> {
    text(headers, VERSION_ID).filter(|id| !id.is_empty() && id != "null")
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back_as_they_went() {
        for text in ["abc-3", "abc-3 vid", "W/\"x\""] {
            assert_eq!(Version::parse(text).to_string(), text);
        }
        assert_eq!(Version::parse("abc-3 vid").quoted(), "\"abc-3\"");
        assert_eq!(Version::parse("W/\"x\"").quoted(), "W/\"x\"");
    }

    #[test]
    fn a_range_is_what_was_asked_for_or_it_is_not() {
        let range = Range { first: 10, end: 20 };
        assert!(range.is("bytes 10-19/100") && range.is("bytes 10-19/*"));
        for other in [
            "",
            "bytes 0-19/100",
            "bytes 10-20/100",
            "bytes 10-14/15",
            "items 10-19/100",
            "bytes 10-18446744073709551615/*",
        ] {
            assert!(!range.is(other), "{other:?}");
        }
        assert_eq!(range.is_cut_by("bytes 10-14/15"), Some(15));
        assert_eq!(range.is_cut_by("bytes 10-14/100"), None);
    }
}
