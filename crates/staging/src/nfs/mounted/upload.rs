//! Uploads: a hidden file that gets its name when it is whole.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use vmferry_block::DirectFile;

use super::fault::fault;
use super::io::{self, errno};
use super::object::meta_of;
use super::tree::{Seat, Tree};
use crate::nfs::names::{self, Upload};
use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};

/// How many threads write one part: parts come one at a time, so that a kill costs one, and a disk wants several writes at once.
const WRITERS: usize = 3;

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
        let feed = Feed::new(offset, body);
        thread::scope(|scope| {
            // A thread that cannot be had leaves its work to the others.
            for _ in 1..WRITERS {
                let _ = thread::Builder::new().spawn_scoped(scope, || feed.write_to(&file));
            }
            feed.write_to(&file);
        });
        let written = feed.finish()? - offset;
        rustix::fs::fdatasync(file.buffered())?;
        Ok(written)
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

/// The pieces of a part, handed out to several threads.
struct Feed(Mutex<FeedState>);

struct FeedState {
    pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    /// Where the next piece belongs.
    at: u64,
    failed: Option<Errno>,
}

impl Feed {
    fn new(offset: u64, body: PartBody) -> Self {
        Self(Mutex::new(FeedState {
            pieces: Box::new(futures::executor::block_on_stream(body.into_stream())),
            at: offset,
            failed: None,
        }))
    }

    /// Writes piece after piece until there is none, or somebody failed.
    fn write_to(&self, file: &DirectFile) {
        while let Some((at, piece)) = self.next() {
            if let Err(error) = file.write_all(at, &piece) {
                self.lock().failed.get_or_insert(errno(&error));
            }
        }
    }

    fn next(&self) -> Option<(u64, Bytes)> {
        let mut state = self.lock();
        if state.failed.is_some() {
            return None;
        }
        let piece = state.pieces.next()?;
        let at = state.at;
        state.at += piece.len() as u64;
        Some((at, piece))
    }

    /// Where the last piece ended.
    fn finish(self) -> Result<u64, Errno> {
        let state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(state.at), Err)
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
