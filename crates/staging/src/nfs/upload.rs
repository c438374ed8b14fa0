//! Uploads: a hidden file that gets its name when it is whole.

use std::fmt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use vmferry_block::DirectFile;

use super::fault::fault;
use super::io::{self, errno};
use super::object::meta_of;
use super::tree::{Seat, Tree};
use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};

/// What an upload id says: it stands for itself in any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upload {
    nonce: u64,
    /// The most bytes that it can become, and what its file has until it is complete.
    most: u64,
    part_size: u64,
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:x}", self.nonce, self.most, self.part_size)
    }
}

impl Upload {
    /// Reads an id; `None` where it is none of ours. It becomes part of a file name, so only the one way to write it counts.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-').map(|field| u64::from_str_radix(field, 16).ok());
        let upload = Self {
            nonce: fields.next()??,
            most: fields.next()??,
            part_size: fields.next()??,
        };
        (upload.to_string() == text && upload.part_size > 0).then_some(upload)
    }

    fn of(tree: &Tree, key: &ObjectKey, id: &UploadId) -> Result<Self, Error> {
        Self::parse(&id.0).ok_or_else(|| {
            Error::new(
                Kind::UploadGone,
                "find",
                format!("upload {:?} of {}", id.0, tree.object(key)),
            )
            .detail("it is not an upload of this kind of store")
        })
    }

    fn file_name(self, name: &str) -> String {
        format!(".{name}.{self}.part")
    }

    /// Number of parts of a file of `len` bytes.
    fn parts(self, len: u64) -> u64 {
        len.div_ceil(self.part_size)
    }
}

pub(super) fn begin(tree: &Tree, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
    let upload = Upload {
        nonce: rand::random(),
        most,
        part_size,
    };
    if part_size == 0 {
        return Err(Error::new(Kind::Bug, "upload", tree.object(key)).detail("parts of no bytes"));
    }
    tree.make("upload", key, |seat| {
        let file = seat.create(&upload.file_name(seat.name))?;
        // The length is there from the start: parts in parallel then never have to make the file longer.
        rustix::fs::ftruncate(&file, most)?;
        rustix::fs::fsync(&file)?;
        seat.sync()
    })?;
    Ok(UploadId(upload.to_string()))
}

pub(super) fn parts(tree: &Tree, key: &ObjectKey, id: &UploadId) -> Result<Uploaded, Error> {
    let Some(upload) = Upload::parse(&id.0) else {
        return Ok(Uploaded::Gone);
    };
    match tree
        .find("look up", key)?
        .map(|seat| open(&seat, upload, OFlags::RDONLY))
    {
        None | Some(Err(Errno::NOENT)) => Ok(Uploaded::Gone),
        Some(Ok(file)) => {
            let stat = rustix::fs::fstat(file.buffered()).map_err(|errno| fault("look up", tree.object(key), errno))?;
            // Cut to its length, it waits for its name: completing it once more does that.
            let whole = stat.st_size.cast_unsigned() <= upload.most;
            Ok(if whole { Uploaded::Unlisted } else { Uploaded::Gone })
        }
        Some(Err(errno)) => Err(fault("look up", tree.object(key), errno)),
    }
}

pub(super) fn put_part(
    tree: &Tree,
    key: &ObjectKey,
    id: &UploadId,
    number: u32,
    offset: u64,
    body: PartBody,
) -> Result<Part, Error> {
    let upload = Upload::of(tree, key, id)?;
    let object = || format!("part {number} of {}", tree.object(key));
    let given = body.len();
    let start = u64::from(number) * upload.part_size;
    if offset != start || start + given > upload.most || given == 0 || given > upload.part_size {
        return Err(Error::new(Kind::Bug, "upload", object()).detail(format!(
            "{given} bytes at {offset} do not fit parts of {} bytes",
            upload.part_size
        )));
    }
    let seat = tree.find("upload", key)?.ok_or_else(|| gone(tree, key, id))?;
    let write = || {
        let file = open(&seat, upload, OFlags::WRONLY)?;
        let mut at = offset;
        for piece in futures::executor::block_on_stream(body.into_stream()) {
            file.write_all(at, &piece).map_err(|error| errno(&error))?;
            at += piece.len() as u64;
        }
        rustix::fs::fdatasync(file.buffered())?;
        Ok(at - offset)
    };
    match write() {
        Ok(written) if written != given => {
            Err(Error::new(Kind::Failed, "upload", object()).detail(format!("{written} of {given} bytes came")))
        }
        Ok(_) => Ok(Part {
            number,
            tag: String::new(),
        }),
        Err(Errno::NOENT) => Err(gone(tree, key, id)),
        Err(errno) => Err(fault("upload", object(), errno)),
    }
}

pub(super) fn complete(
    tree: &Tree,
    key: &ObjectKey,
    id: &UploadId,
    len: u64,
    mut numbers: Vec<u32>,
) -> Result<ObjectMeta, Error> {
    let upload = Upload::of(tree, key, id)?;
    numbers.sort_unstable();
    let parts = upload.parts(len);
    if len > upload.most || !numbers.iter().map(|number| u64::from(*number)).eq(0..parts) {
        return Err(Error::new(Kind::Bug, "complete", tree.object(key)).detail(format!(
            "{} parts were given, and they are not the {parts} that make up {len} of {} bytes",
            numbers.len(),
            upload.most
        )));
    }
    let seat = tree.find("complete", key)?.ok_or_else(|| gone(tree, key, id))?;
    match finish(&seat, upload, len) {
        Ok(meta) if meta.len == len => Ok(meta),
        Ok(_) | Err(Errno::NOENT) => Err(gone(tree, key, id)),
        Err(errno) => Err(fault("complete", tree.object(key), errno)),
    }
}

/// Cuts the file to its length and gives it its name. A file that is shorter keeps its hidden name.
fn finish(seat: &Seat<'_>, upload: Upload, len: u64) -> Result<ObjectMeta, Errno> {
    let hidden = upload.file_name(seat.name);
    let file = open(seat, upload, OFlags::RDWR)?;
    let meta = meta_of(&rustix::fs::fstat(file.buffered())?);
    if meta.len < len {
        return Ok(meta);
    }
    if meta.len > len {
        rustix::fs::ftruncate(file.buffered(), len)?;
    }
    rustix::fs::fsync(file.buffered())?;
    let meta = meta_of(&rustix::fs::fstat(file.buffered())?);
    match seat.rename_new(&hidden, seat.name) {
        // A crash between link and unlink leaves both names on one file: it is the object, and it is ours.
        Err(Errno::EXIST) if is_same(seat, &meta)? => seat.remove(&hidden)?,
        outcome => outcome?,
    }
    seat.sync()?;
    Ok(meta)
}

fn is_same(seat: &Seat<'_>, meta: &ObjectMeta) -> Result<bool, Errno> {
    let there = seat.open(seat.name, OFlags::RDONLY)?;
    Ok(meta_of(&rustix::fs::fstat(&there)?) == *meta)
}

/// Removes every upload and every half-written note of a key.
pub(super) fn abort(tree: &Tree, key: &ObjectKey) -> Result<(), Error> {
    if let Some(seat) = tree.find("abort", key)? {
        let sweep = || {
            for name in seat.names()?.iter().filter(|name| is_partial(name, seat.name)) {
                seat.remove(name)?;
            }
            Ok(())
        };
        sweep().map_err(|errno| fault("abort", format!("uploads of {}", tree.object(key)), errno))?;
    }
    tree.prune(key)
}

/// Whether `file` is an upload or a half-written note of the object `name`, and not of one whose name only begins like it.
fn is_partial(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix('.').and_then(|rest| rest.strip_prefix(name));
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let is_upload = rest.strip_suffix(".part").is_some_and(|id| Upload::parse(id).is_some());
    is_upload || super::note::is_half_written(rest)
}

fn open(seat: &Seat<'_>, upload: Upload, flags: OFlags) -> Result<DirectFile, Errno> {
    io::open(seat, &upload.file_name(seat.name), flags)
}

fn gone(tree: &Tree, key: &ObjectKey, id: &UploadId) -> Error {
    Error::new(
        Kind::UploadGone,
        "find",
        format!("upload {} of {}", id.0, tree.object(key)),
    )
    .detail("its file is gone or was cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_ids_become_file_names() {
        let upload = Upload {
            nonce: 7,
            most: 4096,
            part_size: 512,
        };
        assert_eq!(Upload::parse(&upload.to_string()), Some(upload));
        for bad in [
            "",
            "7-1000-200",
            "0000000000000007-1000-200/../x",
            "0000000000000007-1000",
            "0000000000000007-1000-0",
        ] {
            assert_eq!(Upload::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_abort_knows_its_own_files() {
        let id = "0000000000000007-1000-200";
        assert!(is_partial(&format!(".disk.{id}.part"), "disk"));
        assert!(is_partial(".disk.0000000000000007.new", "disk"));
        for other in [
            format!(".disk.x.{id}.part"),
            ".disk.note".to_owned(),
            ".disk.x.part".to_owned(),
            "disk".to_owned(),
            format!(".dis.{id}.part"),
        ] {
            assert!(!is_partial(&other, "disk"), "{other}");
        }
    }
}
