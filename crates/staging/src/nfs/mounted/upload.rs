//! Uploads: a hidden file that gets its name when it is whole.

use rustix::fs::OFlags;
use rustix::io::Errno;
use vmferry_block::DirectFile;

use super::fault::fault;
use super::io::{self, errno};
use super::object::meta_of;
use super::tree::{Seat, Tree};
use crate::nfs::names::{self, Upload};
use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};

pub(super) fn begin(tree: &Tree, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
    let upload = Upload::new(most, part_size, || tree.object(key))?;
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
    let upload = Upload::of(id, || tree.object(key))?;
    let object = || format!("part {number} of {}", tree.object(key));
    let given = body.len();
    upload.check_part(number, offset, given, || tree.object(key))?;
    let seat = tree
        .find("upload", key)?
        .ok_or_else(|| upload.gone(|| tree.object(key)))?;
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
        Err(Errno::NOENT) => Err(upload.gone(|| tree.object(key))),
        Err(errno) => Err(fault("upload", object(), errno)),
    }
}

pub(super) fn complete(
    tree: &Tree,
    key: &ObjectKey,
    id: &UploadId,
    len: u64,
    numbers: Vec<u32>,
) -> Result<ObjectMeta, Error> {
    let upload = Upload::of(id, || tree.object(key))?;
    upload.check_whole(len, numbers, || tree.object(key))?;
    let seat = tree
        .find("complete", key)?
        .ok_or_else(|| upload.gone(|| tree.object(key)))?;
    match finish(&seat, upload, len) {
        Ok(meta) if meta.len == len => Ok(meta),
        Ok(_) | Err(Errno::NOENT) => Err(upload.gone(|| tree.object(key))),
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
            for name in seat.names()?.iter().filter(|name| names::is_partial(name, seat.name)) {
                seat.remove(name)?;
            }
            Ok(())
        };
        sweep().map_err(|errno| fault("abort", format!("uploads of {}", tree.object(key)), errno))?;
    }
    tree.prune(key)
}

fn open(seat: &Seat<'_>, upload: Upload, flags: OFlags) -> Result<DirectFile, Errno> {
    io::open(seat, &upload.file_name(seat.name), flags)
}
