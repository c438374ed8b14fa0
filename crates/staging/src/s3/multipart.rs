//! Multipart uploads as the server has them: calls on one name and one id.

use std::time::Duration;

use reqwest::Method;

use super::manner::Manner;
use super::object::{MARK, plain_tag};
use super::refusal::Refusal;
use super::wire::{Call, Wire};
use super::xml::{self, Begun, PartsPage};
use crate::{Kind, Part};

/// How long a server may take to make an object out of its parts: some copy them.
const COMPLETING: Duration = Duration::from_mins(20);
/// Pages of parts at most; a page has 1,000 of 10,000.
const PAGES: usize = 20;

/// One upload of the server's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multipart<'a> {
    /// The name of the object that it will make.
    pub(super) name: &'a str,
    /// The server's id.
    pub(super) id: &'a str,
    /// Whether the server was told that parts come with a checksum.
    pub(super) has_checksums: bool,
}

/// A part in the server's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its number, from 0.
    pub(super) number: u32,
    pub(super) tag: String,
    /// Its length in bytes, where the server says it.
    pub(super) len: Option<u64>,
}

impl Listed {
    pub(super) fn part(self) -> Part {
        let Self { number, tag, .. } = self;
        Part { number, tag }
    }
}

/// Begins an upload whose object bears `mark`; gives its id, and whether the server was told of checksums.
pub(super) async fn begin(wire: &Wire, manner: &Manner, name: &str, mark: &str) -> Result<(String, bool), Refusal> {
    let has_checksums = manner.has_checksums();
    match create(wire, name, mark, has_checksums).await {
        Err(refusal) if has_checksums && refusal.may_be_a_header() => {
            let id = create(wire, name, mark, false).await?;
            manner.drop_checksums();
            Ok((id, false))
        }
        id => Ok((id?, has_checksums)),
    }
}

/// Begins an upload in this manner; gives its id.
pub(super) async fn create(wire: &Wire, name: &str, mark: &str, has_checksums: bool) -> Result<String, Refusal> {
    let mut call = Call::new(Method::POST, name, "s3:PutObject")
        .query("uploads", "")
        .header("content-type", "application/octet-stream")
        .header(MARK, mark)
        .once();
    if has_checksums {
        call = call
            .header("x-amz-checksum-algorithm", "CRC64NVME")
            .header("x-amz-checksum-type", "FULL_OBJECT");
    }
    let begun: Begun = wire.call_xml(&call).await?;
    Ok(begun.upload_id)
}

/// The parts in the server's list; `None` where it lists them without their tags.
pub(super) async fn list(wire: &Wire, name: &str, id: &str) -> Result<Option<Vec<Listed>>, Refusal> {
    let mut parts = Vec::new();
    let mut marker = String::new();
    for _ in 0..PAGES {
        let mut call = Call::new(Method::GET, name, "s3:ListMultipartUploadParts").query("uploadId", id);
        if !marker.is_empty() {
            call = call.query("part-number-marker", &marker);
        }
        let page: PartsPage = wire.call_xml(&call).await?;
        let next = page.next().map(str::to_owned);
        for listed in page.parts {
            let (Some(number), Some(tag)) = (listed.part_number.checked_sub(1), listed.tag) else {
                return Ok(None);
            };
            let (tag, len) = (plain_tag(&tag), listed.size);
            parts.push(Listed { number, tag, len });
        }
        match next {
            Some(next) => marker = next,
            None => break,
        }
    }
    parts.sort_by_key(|part| part.number);
    Ok(Some(parts))
}

/// Whether an upload is there: nothing, or why not.
pub(super) async fn find(wire: &Wire, name: &str, id: &str) -> Result<(), Refusal> {
    let call = Call::new(Method::GET, name, "s3:ListMultipartUploadParts")
        .query("uploadId", id)
        .query("max-parts", "1");
    wire.call_xml::<PartsPage>(&call).await.map(drop)
}

/// The call that makes an object out of parts.
pub(super) fn completion<'a>(name: &'a str, id: &'a str, parts: &[Part]) -> Call<'a> {
    Call::new(Method::POST, name, "s3:PutObject")
        .query("uploadId", id)
        .header("content-type", "application/xml")
        .text(xml::completion(parts))
        .patience(COMPLETING)
}

/// Ends an upload without an object. One that is over is ended.
pub(super) async fn abort(wire: &Wire, name: &str, id: &str) -> Result<(), Refusal> {
    let call = Call::new(Method::DELETE, name, "s3:AbortMultipartUpload").query("uploadId", id);
    match wire.call(&call).await {
        Err(refusal) if !matches!(refusal.trouble.kind, Kind::UploadGone | Kind::NotFound) => Err(refusal),
        _ => Ok(()),
    }
}
