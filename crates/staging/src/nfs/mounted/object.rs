//! Whole objects.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use vmferry_block::{Buf, DirectFile};

use super::fault::fault;
use super::io::{self, errno};
use super::tree::Tree;
use crate::nfs::names;
use crate::{Error, Kind, ObjectKey, ObjectMeta};

/// How many objects are kept open for reading.
const OPEN: usize = 8;

/// Length and version of a file.
pub(super) fn meta_of(stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        len: stat.st_size.cast_unsigned(),
        version: names::version(
            stat.st_ino,
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_size.cast_unsigned(),
        ),
    }
}

pub(super) fn head(tree: &Tree, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
    let Some(seat) = tree.find("look up", key)? else {
        return Ok(None);
    };
    let look = || {
        let stat = rustix::fs::fstat(seat.open(seat.name, OFlags::RDONLY)?)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular { Ok(meta_of(&stat)) } else { Err(Errno::ISDIR) }
    };
    match look() {
        Ok(meta) => Ok(Some(meta)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fault("look up", tree.object(key), errno)),
    }
}

pub(super) fn delete(tree: &Tree, key: &ObjectKey) -> Result<(), Error> {
    if let Some(seat) = tree.find("delete", key)? {
        let remove = || seat.remove(seat.name).and_then(|()| seat.sync());
        remove().map_err(|errno| fault("delete", tree.object(key), errno))?;
    }
    tree.prune(key)
}

/// The objects that are being read, kept open from one read to the next; the one used last is at the end.
#[derive(Debug, Default)]
pub(super) struct OpenObjects(Mutex<Vec<OpenObject>>);

#[derive(Debug, Clone)]
struct OpenObject {
    key: ObjectKey,
    version: String,
    file: Arc<DirectFile>,
}

impl OpenObjects {
    /// Fills `buf` from `offset` of the object with this version.
    pub(super) fn read(
        &self,
        tree: &Tree,
        key: &ObjectKey,
        version: &str,
        offset: u64,
        mut buf: Buf,
    ) -> Result<Buf, Error> {
        let file = self.get(tree, key, version)?;
        let n = file
            .read_full(offset, &mut buf)
            .map_err(|error| fault("read", tree.object(key), errno(&error)))?;
        let stat = rustix::fs::fstat(file.buffered()).map_err(|errno| fault("read", tree.object(key), errno))?;
        // Asked after the read: what was read before a change is good. A replaced file has no name any more.
        let now = meta_of(&stat);
        if now.version != version || stat.st_nlink == 0 {
            self.forget(key);
            return Err(changed(tree, key).detail("it was replaced or changed while it was read"));
        }
        let end = offset + buf.len() as u64;
        if n < buf.len() {
            self.forget(key);
            return Err(Error::new(Kind::Bug, "read", tree.object(key))
                .detail(format!("bytes up to {end} were asked for, and it has {}", now.len)));
        }
        if end == now.len {
            // The last read of a pass: an object that is deleted next must not be held open.
            self.forget(key);
        }
        Ok(buf)
    }

    /// Closes an object.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.lock().retain(|object| object.key != *key);
    }

    fn get(&self, tree: &Tree, key: &ObjectKey, version: &str) -> Result<Arc<DirectFile>, Error> {
        if let Some(file) = self.cached(key, version) {
            return Ok(file);
        }
        let seat = tree
            .find("read", key)?
            .ok_or_else(|| changed(tree, key).detail("it is gone"))?;
        let file = match io::open(&seat, seat.name, OFlags::RDONLY) {
            Ok(file) => Arc::new(file),
            Err(Errno::NOENT) => return Err(changed(tree, key).detail("it is gone")),
            Err(errno) => return Err(fault("read", tree.object(key), errno)),
        };
        let stat = rustix::fs::fstat(file.buffered()).map_err(|errno| fault("read", tree.object(key), errno))?;
        if meta_of(&stat).version != version {
            return Err(changed(tree, key).detail("it is not the one that was opened"));
        }
        let mut open = self.lock();
        open.retain(|object| object.key != *key);
        if open.len() == OPEN {
            open.remove(0);
        }
        open.push(OpenObject {
            key: key.clone(),
            version: version.to_owned(),
            file: Arc::clone(&file),
        });
        Ok(file)
    }

    fn cached(&self, key: &ObjectKey, version: &str) -> Option<Arc<DirectFile>> {
        let mut open = self.lock();
        let at = open
            .iter()
            .position(|object| object.key == *key && object.version == version)?;
        let object = open.remove(at);
        let file = Arc::clone(&object.file);
        open.push(object);
        Some(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<OpenObject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn changed(tree: &Tree, key: &ObjectKey) -> Error {
    Error::new(Kind::Changed, "read", tree.object(key))
}
