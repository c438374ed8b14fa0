//! Uploads: everything of one is in a folder of its own below `.<name>.parts/`, until it is whole.

use std::fmt;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::manifest::Manifest;
use super::names::{Names, segment};
use super::object::{Manifests, file_meta, head, manifest};
use super::probe::Mode;
use super::server::{Moved, Server};
use crate::web::Trouble;
use crate::{Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};

/// How many segments are asked for at once.
const ASKING: usize = 16;

/// What an upload id says: it stands for itself in any process, whatever that would find out of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Upload {
    mode: Mode,
    nonce: u64,
    /// The most bytes that it can become.
    most: u64,
    part_size: u64,
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Ranges => 'r',
            Mode::Segments => 's',
        };
        write!(f, "{mode}-{:016x}-{:x}-{:x}", self.nonce, self.most, self.part_size)
    }
}

impl Upload {
    /// Reads an id; `None` where it is none of ours. It becomes part of URLs, so only the one way to write it counts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mode, rest) = text.split_once('-')?;
        let mut fields = rest.split('-').map(|field| u64::from_str_radix(field, 16).ok());
        let upload = Self {
            mode: match mode {
                "r" => Mode::Ranges,
                "s" => Mode::Segments,
                _ => return None,
            },
            nonce: fields.next()??,
            most: fields.next()??,
            part_size: fields.next()??,
        };
        (upload.to_string() == text && upload.part_size > 0).then_some(upload)
    }

    /// The upload of an id that somebody was given.
    fn of(id: &UploadId) -> Result<Self, Trouble> {
        Self::parse(&id.0).ok_or_else(gone)
    }

    fn folder(self) -> String {
        format!("{:016x}", self.nonce)
    }

    /// Its folder while it is under way.
    fn hidden(self, names: &Names<'_>) -> String {
        format!("{}{}/", names.uploads(), self.folder())
    }

    /// The folder of its segments afterwards.
    fn visible(self, names: &Names<'_>) -> String {
        format!("{}{}/", names.segments(), self.folder())
    }

    /// What is there as long as the upload is: the file itself, or a mark beside the segments.
    fn mark(self) -> &'static str {
        match self.mode {
            Mode::Ranges => "object",
            Mode::Segments => ".upload",
        }
    }

    /// Number of parts of `len` bytes.
    fn count(self, len: u64) -> u64 {
        len.div_ceil(self.part_size)
    }
}

fn gone() -> Trouble {
    Trouble::new(Kind::UploadGone, "there is no such upload: it was completed or aborted")
}

fn taken(server: &Server, path: &str) -> Trouble {
    Trouble::new(Kind::NameTaken, format!("{} exists", server.url(path)))
        .remedy("remove it, or give the migration another name")
}

pub(super) async fn begin(
    server: &Server,
    mode: Mode,
    key: &ObjectKey,
    most: u64,
    part_size: u64,
) -> Result<UploadId, Trouble> {
    if part_size == 0 {
        return Err(Trouble::new(Kind::Bug, "parts of no bytes"));
    }
    let upload = Upload {
        mode,
        nonce: rand::random(),
        most,
        part_size,
    };
    let id = upload.to_string();
    let path = format!("{}{}", upload.hidden(&Names::of(key)), upload.mark());
    let text = match mode {
        Mode::Ranges => "",
        Mode::Segments => &id,
    };
    server.put_text_below(&path, text).await?;
    Ok(UploadId(id))
}

/// The folder in which an upload is now; `None` where it is nowhere.
async fn locate(server: &Server, names: &Names<'_>, upload: Upload) -> Result<Option<String>, Trouble> {
    let hidden = upload.hidden(names);
    if server.head(&format!("{hidden}{}", upload.mark())).await?.is_some() {
        return Ok(Some(hidden));
    }
    let visible = upload.visible(names);
    let is_there =
        upload.mode == Mode::Segments && server.head(&format!("{visible}{}", upload.mark())).await?.is_some();
    Ok(is_there.then_some(visible))
}

pub(super) async fn parts(server: &Server, key: &ObjectKey, id: &UploadId) -> Result<Uploaded, Trouble> {
    let names = Names::of(key);
    let Some(upload) = Upload::parse(&id.0) else {
        return Ok(Uploaded::Gone);
    };
    let Some(folder) = locate(server, &names, upload).await? else {
        return Ok(Uploaded::Gone);
    };
    if upload.mode == Mode::Ranges {
        return Ok(Uploaded::Unlisted);
    }
    let is_over = folder == upload.visible(&names);
    if is_over && is_completed(server, &names, upload).await? {
        return Ok(Uploaded::Gone);
    }
    let found = segments(server, &folder, upload.count(upload.most)).await?;
    // A last part is shorter, and so is one that was cut on a server that keeps those: only full ones are sure. Those of an
    // upload that was about to be completed are.
    let is_whole = |len| is_over || len == upload.part_size;
    let parts = found.into_iter().filter(|(_, len, _)| is_whole(*len));
    Ok(Uploaded::Parts(
        parts.map(|(number, _, tag)| Part { number, tag }).collect(),
    ))
}

/// Number, length and tag of the segments that there are, of those before `count`.
async fn segments(server: &Server, folder: &str, count: u64) -> Result<Vec<(u32, u64, String)>, Trouble> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let found: Vec<Option<(u32, u64, String)>> = stream::iter(0..count)
        .map(|number| look(server, folder, number))
        .buffered(ASKING)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

async fn look(server: &Server, folder: &str, number: u32) -> Result<Option<(u32, u64, String)>, Trouble> {
    let meta = server.head(&format!("{folder}{}", segment(number))).await?;
    Ok(meta.and_then(|meta| Some((number, meta.len?, meta.tag.0))))
}

/// Whether the object is this upload.
async fn is_completed(server: &Server, names: &Names<'_>, upload: Upload) -> Result<bool, Trouble> {
    match manifest(server, names).await {
        Ok(manifest) => Ok(manifest.is_some_and(|manifest| manifest.folder == upload.folder())),
        Err(trouble) if trouble.kind == Kind::Invalid => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

pub(super) async fn put_part(
    server: &Server,
    key: &ObjectKey,
    id: &UploadId,
    number: u32,
    offset: u64,
    body: PartBody,
) -> Result<Part, Trouble> {
    let (names, upload, given) = (Names::of(key), Upload::of(id)?, body.len());
    let start = u64::from(number) * upload.part_size;
    if offset != start || start + given > upload.most || given == 0 || given > upload.part_size {
        let detail = format!(
            "{given} bytes at {offset} do not fit parts of {} bytes",
            upload.part_size
        );
        return Err(Trouble::new(Kind::Bug, detail));
    }
    let folder = upload.hidden(&names);
    let is_gone = |trouble: Trouble| {
        if trouble.kind == Kind::NotFound {
            gone()
        } else {
            trouble
        }
    };
    if upload.mode == Mode::Ranges {
        let path = format!("{folder}{}", upload.mark());
        server.put(&path, body, Some(offset)).await.map_err(is_gone)?;
        return Ok(Part {
            number,
            tag: String::new(),
        });
    }
    let (mark, path) = (
        format!("{folder}{}", upload.mark()),
        format!("{folder}{}", segment(number)),
    );
    // Servers make folders as they are needed: what comes after an abort must not stay.
    server.head(&mark).await?.ok_or_else(gone)?;
    server.put(&path, body, None).await.map_err(is_gone)?;
    let (mark, stored) = futures::try_join!(server.head(&mark), server.head(&path))?;
    if mark.is_none() {
        server.delete(&folder).await?;
        return Err(gone());
    }
    match stored {
        Some(meta) if meta.len == Some(given) => Ok(Part {
            number,
            tag: meta.tag.0,
        }),
        stored => {
            let len = stored.and_then(|meta| meta.len);
            let detail = format!("the server took {given} bytes and has {}", len.unwrap_or(0));
            Err(Trouble::new(Kind::Unfit, detail))
        }
    }
}

pub(super) async fn complete(
    server: &Server,
    known: &Manifests,
    key: &ObjectKey,
    id: &UploadId,
    len: u64,
    parts: &[Part],
) -> Result<ObjectMeta, Trouble> {
    let (names, upload) = (Names::of(key), Upload::of(id)?);
    let mut numbers: Vec<u64> = parts.iter().map(|part| u64::from(part.number)).collect();
    numbers.sort_unstable();
    let count = upload.count(len);
    if len > upload.most || !numbers.iter().copied().eq(0..count) {
        let detail = format!(
            "{} parts were given, and they are not the {count} that make up {len} of {} bytes",
            numbers.len(),
            upload.most
        );
        return Err(Trouble::new(Kind::Bug, detail));
    }
    match upload.mode {
        Mode::Ranges => complete_file(server, &names, upload, len).await?,
        Mode::Segments => complete_segments(server, &names, upload, len).await?,
    }
    // It is the object now: what cannot be removed now is removed by the abort of the key.
    if let Err(trouble) = server.delete(&names.uploads()).await {
        tracing::debug!("{} may have stayed: {}", server.url(&names.uploads()), trouble.detail);
    }
    match head(server, known, key).await? {
        Some(meta) if meta.len == len => Ok(meta),
        _ => Err(Trouble::new(
            Kind::Changed,
            "it was replaced as soon as it was complete",
        )),
    }
}

/// Gives the file its name.
async fn complete_file(server: &Server, names: &Names<'_>, upload: Upload, len: u64) -> Result<(), Trouble> {
    let path = format!("{}{}", upload.hidden(names), upload.mark());
    let meta = server.head(&path).await?.ok_or_else(gone)?;
    let whole = file_meta(&meta)?;
    if whole.len != len {
        let detail = format!("the server has {} bytes of it instead of {len}", whole.len);
        return Err(Trouble::new(Kind::UploadGone, detail));
    }
    if server.head(&names.manifest()).await?.is_some() {
        return Err(taken(server, &names.manifest()));
    }
    match server.rename(&path, &names.object()).await? {
        Moved::Done => Ok(()),
        // It has its name already, and the answer that said so was lost.
        _ if server.head(&path).await?.is_none() && server.head(&names.object()).await? == Some(meta) => Ok(()),
        Moved::Taken => Err(taken(server, &names.object())),
        Moved::Nothing => Err(gone()),
    }
}

/// Gives the segments their place, and then the manifest its name: only that makes them an object.
async fn complete_segments(server: &Server, names: &Names<'_>, upload: Upload, len: u64) -> Result<(), Trouble> {
    let folder = locate(server, names, upload).await?.ok_or_else(gone)?;
    let visible = upload.visible(names);
    if folder == visible && is_completed(server, names, upload).await? {
        return Ok(());
    }
    let manifest = describe(server, &folder, upload, len).await?;
    for path in [names.object(), names.manifest()] {
        if server.head(&path).await?.is_some() {
            return Err(taken(server, &path));
        }
    }
    if folder != visible {
        // What an abort finds if this ends here.
        server.put_text(&names.pointer(), &upload.folder()).await?;
        server.make_folder(&names.segments()).await?;
        match server.rename(&folder, &visible).await? {
            Moved::Done => {}
            _ if server.is_moved(&folder, &visible, upload.mark()).await? => {}
            Moved::Nothing => return Err(gone()),
            Moved::Taken => return Err(taken(server, &visible)),
        }
    }
    let text = manifest
        .text()
        .map_err(|error| Trouble::new(Kind::Bug, error.to_string()))?;
    let new = format!("{visible}.manifest");
    server.put_text(&new, &text).await?;
    match server.rename(&new, &names.manifest()).await? {
        Moved::Done => {}
        Moved::Nothing | Moved::Taken if is_completed(server, names, upload).await? => {}
        Moved::Nothing => return Err(gone()),
        Moved::Taken => {
            server.delete(&visible).await?;
            return Err(taken(server, &names.manifest()));
        }
    }
    server.delete(&format!("{visible}{}", upload.mark())).await?;
    Ok(())
}

/// The manifest of the segments that there are, which must be all.
async fn describe(server: &Server, folder: &str, upload: Upload, len: u64) -> Result<Manifest, Trouble> {
    let found = segments(server, folder, upload.count(len)).await?;
    let lens: Vec<(u32, u64)> = found.iter().map(|(number, len, _)| (*number, *len)).collect();
    let tags = found.into_iter().map(|(.., tag)| tag).collect();
    let manifest = Manifest::new(upload.folder(), len, upload.part_size, tags);
    let expected = (0..)
        .zip(&manifest.segments)
        .map(|(number, segment)| (number, segment.length));
    if lens.len() as u64 != upload.count(len) || !expected.eq(lens) {
        return Err(Trouble::new(
            Kind::UploadGone,
            "segments are missing or not of their length",
        ));
    }
    Ok(manifest)
}

/// Removes every upload of a key, and what one left that was about to be completed.
pub(super) async fn abort(server: &Server, key: &ObjectKey) -> Result<(), Trouble> {
    let names = Names::of(key);
    let about = server.text(&names.pointer(), 64).await?;
    let about = about.and_then(|folder| Upload::parse(&format!("s-{folder}-1-1")));
    if let Some(upload) = about
        && !is_completed(server, &names, upload).await?
    {
        server.delete(&upload.visible(&names)).await?;
    }
    server.delete(&names.uploads()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_one_form_only() {
        let id = "s-00000000000000ff-10000-1000";
        assert_eq!(Upload::parse(id).unwrap().to_string(), id);
        for bad in [
            "",
            "x-00000000000000ff-10000-1000",
            "s-ff-10000-1000",
            "s-00000000000000FF-10000-1000",
            "s-00000000000000ff-10000-0",
            "s-00000000000000ff-10000-1000-1",
            "s-../../../../../a-1-1",
        ] {
            assert_eq!(Upload::parse(bad), None, "{bad}");
        }
    }
}
