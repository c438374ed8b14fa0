//! The folder tree below the staging path, walked without following links.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::fault::fault;
use crate::nfs::names;
use crate::{Error, Kind, ObjectKey};

/// Mode of the folders that we make.
const FOLDER: Mode = Mode::RWXU;
/// Mode of the files that we make.
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How often a folder is made again that another process, which found it empty, removed meanwhile.
const RACES: usize = 8;

/// The staging path.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
}

/// Where an object is, or would be: an open folder and a name in it.
pub(super) struct Seat<'key> {
    folder: OwnedFd,
    pub(super) name: &'key str,
}

impl Tree {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn describe(&self) -> String {
        format!("staging path {}", self.path.display())
    }

    /// The full path of an object, for messages.
    pub(super) fn path_of(&self, key: &ObjectKey) -> String {
        self.path.join(key.as_str()).display().to_string()
    }

    /// How messages name an object.
    pub(super) fn object(&self, key: &ObjectKey) -> String {
        format!("staged object {}", self.path_of(key))
    }

    /// The folder of an object; `None` where it does not exist.
    pub(super) fn find<'key>(&self, action: &'static str, key: &'key ObjectKey) -> Result<Option<Seat<'key>>, Error> {
        let (folders, name) = split(key);
        let mut folder = self.root(action)?;
        for segment in folders {
            folder = match open_folder(&folder, segment) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(fault(action, self.object(key), errno)),
            };
        }
        Ok(Some(Seat { folder, name }))
    }

    /// Does `work` in the folder of an object, which is made if need be.
    pub(super) fn make<'key, T>(
        &self,
        action: &'static str,
        key: &'key ObjectKey,
        work: impl Fn(&Seat<'key>) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let mut races = 0;
        loop {
            match self
                .make_folders(action, key)?
                .map_or(Err(Errno::NOENT), |seat| work(&seat))
            {
                Err(Errno::NOENT) if races < RACES => races += 1,
                outcome => return outcome.map_err(|errno| fault(action, self.object(key), errno)),
            }
        }
    }

    /// The folder of an object, made if need be; `None` where another process removes what we make.
    fn make_folders<'key>(&self, action: &'static str, key: &'key ObjectKey) -> Result<Option<Seat<'key>>, Error> {
        let (folders, name) = split(key);
        let mut folder = self.root(action)?;
        for segment in folders {
            folder = match make_folder(&folder, segment) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(fault(action, self.object(key), errno)),
            };
        }
        Ok(Some(Seat { folder, name }))
    }

    /// Removes the folders of an object that are empty, from the innermost, never the staging path itself.
    pub(super) fn prune(&self, key: &ObjectKey) -> Result<(), Error> {
        let mut at = key.as_str();
        while let Some((parent, _)) = at.rsplit_once('/') {
            let Ok(folder) = parent.parse::<ObjectKey>() else { break };
            let Some(seat) = self.find("delete", &folder)? else {
                at = parent;
                continue;
            };
            match rustix::fs::unlinkat(&seat.folder, seat.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => at = parent,
                // Something else is in it, and it stays.
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                Err(errno) => return Err(fault("delete", format!("folder {}", self.path_of(&folder)), errno)),
            }
        }
        Ok(())
    }

    /// Whether the path is a folder that can be written and has room for `need` bytes.
    pub(super) fn check(&self, need: u64) -> Result<(), Error> {
        let root = self.root("use")?;
        let probe = names::probe();
        let seat = Seat {
            folder: root,
            name: &probe,
        };
        let try_write = || {
            let file = seat.create(&probe)?;
            let wrote = rustix::io::pwrite(&file, b"vmferry", 0).and_then(|_| rustix::fs::fsync(&file));
            seat.remove(&probe)?;
            wrote
        };
        try_write().map_err(|errno| fault("write to", self.describe(), errno))?;
        let room = rustix::fs::fstatvfs(&seat.folder).map_err(|errno| fault("use", self.describe(), errno))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < need {
            return Err(Error::new(Kind::NoSpace, "use", self.describe())
                .detail(format!("{need} bytes are needed and {free} bytes are free"))
                .remedy("free some space there or use another staging path"));
        }
        Ok(())
    }

    fn root(&self, action: &'static str) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Error::new(Kind::NotFound, action, self.describe())
                .detail(if errno == Errno::NOENT {
                    "it does not exist"
                } else {
                    "it is not a folder"
                })
                .remedy("mount the NFS export there, or set spec.storage.path to where it is mounted"),
            errno => fault(action, self.describe(), errno),
        })
    }
}

impl Seat<'_> {
    /// Opens an existing file of this folder.
    pub(super) fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // NONBLOCK: a FIFO that someone put there must not hold us up. Regular files ignore it.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&self.folder, name, flags, Mode::empty())
    }

    /// Makes a new file in this folder, open for writing.
    pub(super) fn create(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name, flags, FILE)
    }

    /// Removes a file of this folder, if it exists.
    pub(super) fn remove(&self, name: &str) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            outcome => outcome,
        }
    }

    /// Renames within this folder, replacing what has the name `to`.
    pub(super) fn replace(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.folder, from, &self.folder, to)?;
        self.sync()
    }

    /// Renames within this folder; [`Errno::EXIST`] where `to` exists.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> Result<(), Errno> {
        use rustix::fs::RenameFlags;
        match rustix::fs::renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE) {
            // NFS and old kernels do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(from, to),
            outcome => outcome,
        }
    }

    /// The same by way of a second link, which every file system refuses where the name exists.
    pub(super) fn link_new(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::linkat(&self.folder, from, &self.folder, to, AtFlags::empty())?;
        self.remove(from)
    }

    /// Makes the names of this folder durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.folder)
    }

    /// Calls `found` with every name in this folder.
    pub(super) fn names(&self) -> Result<Vec<String>, Errno> {
        let text = |name: &CStr| name.to_str().ok().map(ToOwned::to_owned);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            names.extend(text(entry?.file_name()));
        }
        Ok(names)
    }
}

fn split(key: &ObjectKey) -> (impl Iterator<Item = &str>, &str) {
    let (folders, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
    (folders.split('/').filter(|segment| !segment.is_empty()), name)
}

fn open_folder(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn make_folder(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, FOLDER) {
        Ok(()) => rustix::fs::fsync(parent)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_folder(parent, name)
}
