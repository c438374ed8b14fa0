//! Small objects of our own beside a staged one: notes, and lists of uploads.
//!
//! Their names start with a dot in their last segment, which no [`ObjectKey`](crate::ObjectKey) does: they meet no object.

use reqwest::Method;

use super::object::version_id;
use super::refusal::Refusal;
use super::wire::{Call, Wire};
use super::xml::{ListedObject, ObjectsPage, VersionsPage};
use crate::web::Trouble;
use crate::{Kind, ObjectKey};

/// The longest text that is read, in bytes. A longer one is not ours.
const LONGEST: usize = 4 << 20;
/// Pages of versions or objects at most; a page has 1,000.
const PAGES: usize = 100;

/// The name beside `key` with this ending: `a/disk` has `a/.disk.note`.
pub(super) fn name_beside(key: &ObjectKey, ending: &str) -> String {
    match key.as_str().rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/.{name}.{ending}"),
        None => format!(".{key}.{ending}"),
    }
}

pub(super) async fn read(wire: &Wire, name: &str) -> Result<Option<String>, Refusal> {
    let call = Call::new(Method::GET, name, "s3:GetObject and s3:ListBucket").plain();
    let outcome = wire.call_text(&call, LONGEST + 1).await;
    match outcome {
        Ok(text) if text.len() > LONGEST => Err(Trouble::new(Kind::Invalid, "it is longer than any of ours").into()),
        Ok(text) => Ok(Some(text)),
        Err(refusal) if refusal.trouble.kind == Kind::NotFound => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// The objects whose names begin so.
pub(super) async fn list(wire: &Wire, prefix: &str) -> Result<Vec<ListedObject>, Refusal> {
    let mut found = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES {
        let mut call = Call::new(Method::GET, "", "s3:ListBucket")
            .query("list-type", "2")
            .query("prefix", prefix);
        if !token.is_empty() {
            call = call.query("continuation-token", &token);
        }
        let page: ObjectsPage = wire.call_xml(&call).await?;
        let next = page.next().map(str::to_owned);
        found.extend(page.objects.into_iter().filter(|object| object.key.starts_with(prefix)));
        match next {
            Some(next) => token = next,
            None => break,
        }
    }
    Ok(found)
}

/// Replaces the object; gives the id of its version in a bucket that keeps versions.
pub(super) async fn write(wire: &Wire, name: &str, text: &str) -> Result<Option<String>, Refusal> {
    let call = Call::new(Method::PUT, name, "s3:PutObject").text(text);
    let answer = wire.call(&call).await?;
    Ok(version_id(answer.headers()))
}

/// Deletes the object, with all of its versions where the bucket keeps them: they are all ours.
pub(super) async fn delete(wire: &Wire, name: &str) -> Result<(), Refusal> {
    let call = Call::new(Method::DELETE, name, "s3:DeleteObject");
    let answer = match wire.call(&call).await {
        Err(refusal) if refusal.trouble.kind == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    // Where versions are kept, this only put a marker before them.
    if version_id(answer.headers()).is_none() {
        return Ok(());
    }
    for version in versions(wire, name).await? {
        forget(wire, name, &version).await?;
    }
    Ok(())
}

/// Deletes a version that was replaced. Who may not do that keeps it.
pub(super) async fn forget(wire: &Wire, name: &str, version: &str) -> Result<(), Refusal> {
    let call = Call::new(Method::DELETE, name, "s3:DeleteObjectVersion").query("versionId", version);
    match wire.call(&call).await {
        Err(refusal) if refusal.trouble.kind != Kind::NotFound && !refusal.is_unsupported() => Err(refusal),
        _ => Ok(()),
    }
}

/// The ids of all versions and delete markers of exactly this name.
async fn versions(wire: &Wire, name: &str) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    let mut marker: Option<(String, String)> = None;
    for _ in 0..PAGES {
        let mut call = Call::new(Method::GET, "", "s3:ListBucketVersions")
            .query("versions", "")
            .query("prefix", name);
        if let Some((key, version)) = &marker {
            call = call.query("key-marker", key);
            if !version.is_empty() {
                call = call.query("version-id-marker", version);
            }
        }
        let page: VersionsPage = match wire.call_xml(&call).await {
            Err(refusal) if refusal.is_unsupported() => break,
            page => page?,
        };
        marker = page.next().map(|(key, version)| (key.to_owned(), version.to_owned()));
        let ours = page.versions().filter(|version| version.key == name);
        found.extend(ours.map(|version| version.version_id));
        if marker.is_none() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_a_name_of_ours() {
        for (key, name) in [("disk", ".disk.note"), ("a/b/disk", "a/b/.disk.note")] {
            let beside = name_beside(&key.parse().unwrap(), "note");
            assert_eq!(beside, name);
            assert!(beside.parse::<ObjectKey>().is_err());
        }
    }
}
