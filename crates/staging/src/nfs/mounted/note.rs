//! Notes beside objects.

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::fault::fault;
use super::io::{self, errno};
use super::tree::Tree;
use crate::nfs::names;
use crate::{Error, Kind, ObjectKey};

/// The longest note that is read, in bytes. A longer one is not ours.
const LONGEST: usize = 4 << 20;

pub(super) fn read(tree: &Tree, key: &ObjectKey) -> Result<Option<String>, Error> {
    let Some(seat) = tree.find("read", key)? else {
        return Ok(None);
    };
    let load = || {
        let file = io::open(&seat, &names::note(seat.name), OFlags::RDONLY)?;
        let len = usize::try_from(rustix::fs::fstat(file.buffered())?.st_size).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(LONGEST + 1)];
        let n = file.read_full(0, &mut bytes).map_err(|error| errno(&error))?;
        bytes.truncate(n);
        Ok(bytes)
    };
    match load() {
        Ok(bytes) if bytes.len() <= LONGEST => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(Error::new(Kind::Invalid, "read", object(tree, key)).source(error)),
        },
        Ok(_) => Err(Error::new(Kind::Invalid, "read", object(tree, key)).detail("it is longer than any note of ours")),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fault("read", object(tree, key), errno)),
    }
}

pub(super) fn write(tree: &Tree, key: &ObjectKey, text: &str) -> Result<(), Error> {
    tree.make("write", key, |seat| {
        let new = names::new_note(seat.name);
        let file = seat.create(&new)?;
        let fill = || {
            let mut bytes = text.as_bytes();
            let mut at = 0;
            while !bytes.is_empty() {
                let n = rustix::io::pwrite(&file, bytes, at)?;
                bytes = &bytes[n..];
                at += n as u64;
            }
            rustix::fs::fdatasync(&file)?;
            seat.replace(&new, &names::note(seat.name))
        };
        fill().inspect_err(|_| seat.remove(&new).unwrap_or_default())
    })
}

pub(super) fn delete(tree: &Tree, key: &ObjectKey) -> Result<(), Error> {
    if let Some(seat) = tree.find("delete", key)? {
        let remove = || seat.remove(&names::note(seat.name)).and_then(|()| seat.sync());
        remove().map_err(|errno| fault("delete", object(tree, key), errno))?;
    }
    tree.prune(key)
}

fn object(tree: &Tree, key: &ObjectKey) -> String {
    format!("the note of {}", tree.object(key))
}
