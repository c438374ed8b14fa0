//! Whole objects: one file, or segments with a manifest.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{Method, StatusCode};
use vmferry_block::Buf;

use super::manifest::{LONGEST, Manifest};
use super::names::Names;
use super::server::{Meta, Server, Tag, persist};
use crate::web::{Answer, Trouble};
use crate::{Kind, ObjectKey, ObjectMeta};

/// How many manifests are remembered.
const REMEMBERED: usize = 8;

/// The manifests of the objects that were read last, the last one at the end.
#[derive(Debug, Default)]
pub(super) struct Manifests(Mutex<Vec<(ObjectKey, Arc<Manifest>)>>);

impl Manifests {
    fn get(&self, key: &ObjectKey, version: &str) -> Option<Arc<Manifest>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = known
            .iter()
            .filter(|(of, manifest)| of == key && manifest.object_version() == version);
        fitting.next().map(|(_, manifest)| Arc::clone(manifest))
    }

    fn remember(&self, key: &ObjectKey, manifest: &Arc<Manifest>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, _)| of != key);
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push((key.clone(), Arc::clone(manifest)));
    }
}

/// The version of an object that is one file.
fn file_version(len: u64, tag: &Tag) -> String {
    format!("file {len} {}", tag.0)
}

/// The length and tag that a version of an object that is one file stands for.
fn parse_file_version(version: &str) -> Option<(u64, Tag)> {
    let (len, tag) = version.strip_prefix("file ")?.split_once(' ')?;
    Some((len.parse().ok()?, Tag(tag.to_owned())))
}

/// Length and version of a file.
pub(super) fn file_meta(meta: &Meta) -> Result<ObjectMeta, Trouble> {
    let unfit = |detail: &str| Trouble::new(Kind::Unfit, detail);
    let len = meta
        .len
        .ok_or_else(|| unfit("the server does not say how long it is"))?;
    if meta.tag.is_empty() {
        return Err(unfit(
            "the server gives neither ETag nor Last-Modified, so a change could not be noticed",
        ));
    }
    Ok(ObjectMeta {
        len,
        version: file_version(len, &meta.tag),
    })
}

/// The manifest of an object, where it has one.
pub(super) async fn manifest(server: &Server, names: &Names<'_>) -> Result<Option<Manifest>, Trouble> {
    let Some(text) = server.text(&names.manifest(), LONGEST).await? else {
        return Ok(None);
    };
    let parsed = Manifest::parse(&text);
    parsed.map(Some).ok_or_else(|| {
        Trouble::new(
            Kind::Invalid,
            format!("{} is not a manifest of ours", server.url(&names.manifest())),
        )
        .remedy("remove it, or give the migration another name")
    })
}

pub(super) async fn head(server: &Server, known: &Manifests, key: &ObjectKey) -> Result<Option<ObjectMeta>, Trouble> {
    let names = Names::of(key);
    if let Some(meta) = server.head(&names.object()).await? {
        return file_meta(&meta).map(Some);
    }
    let Some(manifest) = manifest(server, &names).await? else {
        return Ok(None);
    };
    let manifest = Arc::new(manifest);
    known.remember(key, &manifest);
    Ok(Some(ObjectMeta {
        len: manifest.length,
        version: manifest.object_version(),
    }))
}

/// Removes an object, its segments first: it stays as long as there is something to remove.
pub(super) async fn delete(server: &Server, key: &ObjectKey) -> Result<(), Trouble> {
    let names = Names::of(key);
    server.delete(&names.object()).await?;
    if let Some(manifest) = manifest(server, &names).await? {
        server
            .delete(&format!("{}{}/", names.segments(), manifest.folder))
            .await?;
        server.delete(&names.manifest()).await?;
    }
    Ok(())
}

pub(super) async fn read(
    server: &Server,
    known: &Manifests,
    key: &ObjectKey,
    version: &str,
    offset: u64,
    bufs: &mut [Buf],
) -> Result<(), Trouble> {
    let names = Names::of(key);
    let wanted: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
    let within = |len: u64| match offset.checked_add(wanted) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Trouble::new(
            Kind::Bug,
            format!("{wanted} bytes at {offset} were asked for, and it has {len}"),
        )),
    };
    if let Some((len, tag)) = parse_file_version(version) {
        within(len)?;
        let file = File {
            path: names.object(),
            len,
            tag,
        };
        return file.read(server, offset, bufs, 0..wanted as usize).await;
    }
    let manifest = opened(server, known, key, version).await?;
    within(manifest.length)?;
    let mut at = 0;
    while at < wanted {
        let number = (offset + at) / manifest.part_size;
        let start = (offset + at) % manifest.part_size;
        let segment = manifest.segments.get(number as usize);
        let segment = segment.ok_or_else(|| Trouble::new(Kind::Bug, format!("there is no segment {number}")))?;
        let end = wanted.min(at + segment.length - start);
        let file = File {
            path: format!("{}{}/{}", names.segments(), manifest.folder, segment.name),
            len: segment.length,
            tag: Tag(segment.tag.clone()),
        };
        file.read(server, start, bufs, at as usize..end as usize).await?;
        at = end;
    }
    Ok(())
}

/// The manifest of the version that is being read.
async fn opened(server: &Server, known: &Manifests, key: &ObjectKey, version: &str) -> Result<Arc<Manifest>, Trouble> {
    if let Some(manifest) = known.get(key, version) {
        return Ok(manifest);
    }
    match manifest(server, &Names::of(key)).await? {
        Some(manifest) if manifest.object_version() == version => {
            let manifest = Arc::new(manifest);
            known.remember(key, &manifest);
            Ok(manifest)
        }
        Some(_) => Err(changed("it is not the one that was opened")),
        None => Err(changed("it is gone")),
    }
}

/// A file as it was when it was opened.
struct File {
    path: String,
    len: u64,
    tag: Tag,
}

impl File {
    /// Fills a range of `bufs` from `offset` of the file on. What a cut answer gave is kept, and the rest asked for again.
    async fn read(&self, server: &Server, offset: u64, bufs: &mut [Buf], range: Range<usize>) -> Result<(), Trouble> {
        let mut at = range.start;
        persist!(self.go_on(server, offset, bufs, &range, &mut at))
    }

    /// Fills `bufs` from byte `at` of them on, and moves it on as far as they are filled.
    async fn go_on(
        &self,
        server: &Server,
        offset: u64,
        bufs: &mut [Buf],
        range: &Range<usize>,
        at: &mut usize,
    ) -> Result<(), Trouble> {
        let first = offset + (*at - range.start) as u64;
        let end = offset + range.len() as u64;
        if first == end {
            return Ok(());
        }
        let answer = server.range(&self.path, first, end).await?;
        self.check(server, &answer, first, end)?;
        let (filled, outcome) = answer.fill_range(bufs, *at..range.end).await;
        *at = filled;
        outcome
    }

    /// Whether an answer is of this file and of the range that was asked for.
    fn check(&self, server: &Server, answer: &Answer, first: u64, end: u64) -> Result<(), Trouble> {
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK if Tag::of(answer) != self.tag => return Err(changed("it is not the one that was opened")),
            StatusCode::OK => {
                let detail = "the server ignored the range that was asked for, and would send all of it";
                return Err(Trouble::new(Kind::Unfit, detail)
                    .remedy("use a server, or a way to it, that gives ranges of files"));
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(changed("it is gone")),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(changed("it is shorter now")),
            StatusCode::PRECONDITION_FAILED => return Err(changed("it is not the one that was opened")),
            _ => return Err(server.refusal(&Method::GET, &self.path, answer)),
        }
        let range = answer.header(CONTENT_RANGE).unwrap_or("nothing");
        let given = parse_content_range(range)
            .ok_or_else(|| Trouble::new(Kind::Unfit, format!("the server says {range:?} in Content-Range")))?;
        if given.2 != self.len || Tag::of(answer) != self.tag {
            return Err(changed("it is not the one that was opened"));
        }
        let claimed = answer.header(CONTENT_LENGTH).and_then(|len| len.parse::<u64>().ok());
        if (given.0, given.1 + 1) != (first, end) || claimed.is_some_and(|len| len != end - first) {
            let asked = format!("asked for bytes {first} to {} of {}", end - 1, self.len);
            let claimed = claimed.map_or_else(|| "unknown".to_owned(), |len| len.to_string());
            let detail = format!("{asked}, the server gives {range:?} with a length of {claimed}");
            return Err(Trouble::new(Kind::Unfit, detail));
        }
        Ok(())
    }
}

fn changed(detail: &str) -> Trouble {
    Trouble::new(Kind::Changed, detail)
}

/// `bytes first-last/length`. RFC 9110, section 14.4.
fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, len) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, len) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
    (first <= last && last < len).then_some((first, last, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_versions_are_read_back() {
        assert_eq!(parse_content_range("bytes 2-9/10"), Some((2, 9, 10)));
        for bad in [
            "bytes 2-9/*",
            "bytes */10",
            "bytes 9-2/10",
            "bytes 2-10/10",
            "2-9/10",
            "nothing",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
        let tag = Tag("\"a b\" Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
        assert_eq!(parse_file_version(&file_version(12, &tag)), Some((12, tag)));
        assert_eq!(parse_file_version("segments 0 1"), None);
    }
}
