//! The file of a copy: under a hidden name until it is whole.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use vmferry_block::LocalFileWriter;

use crate::exit::Failure;

/// How many hidden names are tried.
const TRIES: u32 = 16;

/// A file in the making. It is removed when it is dropped before it got its name.
pub struct Target {
    /// Where it is written.
    pub file: LocalFileWriter,
    unnamed: Unnamed,
    path: PathBuf,
    force: bool,
}

/// The hidden name, which is removed in the end.
struct Unnamed(Option<PathBuf>);

impl Target {
    /// Begins a file that will be `path`. Refuses a name that is taken, unless a file may be replaced (`force`).
    pub async fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        let (hidden, file) = tokio::task::block_in_place(|| {
            check_free(path, force)?;
            make_hidden(path).map_err(|error| cannot("write", path, &error))
        })?;
        // From here on it is removed whatever happens.
        let unnamed = Unnamed(Some(hidden));
        let file = LocalFileWriter::from_file(file).await;
        Ok(Self {
            file: file.map_err(|error| cannot("write", path, &error))?,
            unnamed,
            path: path.to_owned(),
            force,
        })
    }

    /// Where the file lies now.
    pub fn hidden(&self) -> &Path {
        self.unnamed.0.as_deref().unwrap_or(&self.path)
    }

    /// The failure of a write.
    pub fn failure(&self, error: &io::Error) -> Failure {
        cannot("write", &self.path, error)
    }

    /// Gives the file its name. It is durable then.
    pub fn name(mut self) -> Result<(), Failure> {
        tokio::task::block_in_place(|| {
            let renamed = if self.force {
                check_free(&self.path, true)?;
                std::fs::rename(self.hidden(), &self.path)
            } else {
                rename_new(self.hidden(), &self.path)
            };
            match renamed {
                Ok(()) => self.unnamed.0 = None,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken(&self.path)),
                Err(error) => return Err(cannot("name", &self.path, &error)),
            }
            File::open(folder(&self.path))
                .and_then(|folder| folder.sync_all())
                .map_err(|error| cannot("write the folder of", &self.path, &error))
        })
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(hidden) = &self.0 {
            let _ = std::fs::remove_file(hidden);
        }
    }
}

/// Refuses a name that is taken.
fn check_free(path: &Path, force: bool) -> Result<(), Failure> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("look at", path, &error)),
    };
    match (force, found.is_file()) {
        (true, true) => Ok(()),
        (false, true) => Err(taken(path)),
        (_, false) => Err(Failure::failed(format!(
            "cannot write {}: it exists and is no plain file; choose another name (a block device can be served by \
             qemu-nbd and written over nbd+unix://)",
            path.display()
        ))),
    }
}

fn taken(path: &Path) -> Failure {
    Failure::failed(format!(
        "cannot write {}: it exists; choose another name, or replace it with --force",
        path.display()
    ))
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room there, or choose another folder",
        io::ErrorKind::NotFound => "; make its folder first",
        io::ErrorKind::PermissionDenied => "; choose a folder that you may write",
        _ => "",
    };
    Failure::failed(format!("cannot {action} {}: {error}{remedy}", path.display()))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A new file beside `path`, for its owner alone.
fn make_hidden(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut answer = Err(io::ErrorKind::AlreadyExists.into());
    for number in 0..TRIES {
        // A long name is cut: the hidden one has to fit, too.
        let front = &name.as_bytes()[..name.len().min(200)];
        let mut hidden = b".".to_vec();
        hidden.extend_from_slice(front);
        hidden.extend_from_slice(format!(".{}-{number}.part", std::process::id()).as_bytes());
        let hidden = folder(path).join(std::ffi::OsStr::from_bytes(&hidden));
        answer = options.open(&hidden).map(|file| (hidden, file));
        match &answer {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            _ => break,
        }
    }
    answer
}

/// Renames to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems (NFS) cannot; a link to a name that is taken fails, too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        answer => answer.map_err(io::Error::from),
    }
}
