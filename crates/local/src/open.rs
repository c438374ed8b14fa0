//! Opening a state directory.

use std::fs;
use std::path::{Path, PathBuf};

use vmferry_api::Key;

use crate::error::{self, Error, Kind};
use crate::file;
use crate::lock::Lock;

/// The layout of this version.
const FORMAT: &str = "vmferry state 1";

/// What a state directory may hold whose `format` a crash tore.
const OURS: [&str; 7] = [
    "format",
    "lock",
    "migrations",
    "virtualmachines",
    "providers",
    "events",
    "run",
];
/// What one may hold that has no `format`, which is written before everything else.
const FIRST: [&str; 1] = ["lock"];

/// A state directory.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held by who works here; who only reads has none.
    lock: Option<Lock>,
}

impl StateDir {
    /// Opens a directory to work in, making it where there is none. Sockets and half-written files of a process that
    /// crashed are removed.
    ///
    /// # Errors
    /// Where another process works there, where it is not a state directory, or the file system says no.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = absolute(&root.into())?;
        refuse_foreign(&root)?;
        file::make_folder(&root)?;
        let lock = Lock::take(&root.join("lock"))?;
        let dir = Self { root, lock: Some(lock) };
        dir.mark()?;
        for kind in ["migrations", "virtualmachines", "providers"] {
            file::sweep(&dir.root.join(kind))?;
        }
        dir.wipe_runtime()?;
        Ok(dir)
    }

    /// Opens a directory to look at, whoever works there. One that does not exist is empty.
    ///
    /// # Errors
    /// Where it is not a state directory.
    pub fn look(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = absolute(&root.into())?;
        refuse_foreign(&root)?;
        Ok(Self { root, lock: None })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where sockets go while this process works. Short, because the names of sockets must be.
    pub fn runtime(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Whether this process may change it.
    pub(crate) fn writable(&self) -> bool {
        self.lock.is_some()
    }

    pub(crate) fn folder(&self, kind: &str) -> PathBuf {
        self.root.join(kind)
    }

    /// The file of an object. Names from manifests were checked when they were read; whoever else made one up is refused.
    pub(crate) fn path(&self, kind: &str, key: &Key, extension: &str) -> Result<PathBuf, Error> {
        let safe = |name: &str| {
            !name.is_empty()
                && name.len() <= 253
                && !name.starts_with('.')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if !safe(&key.namespace) || !safe(&key.name) {
            return Err(Error::new(Kind::Foreign, "keep", format!("{key:?}"))
                .detail("the name cannot be a file name")
                .remedy("use lower-case letters, digits, '-' and '.'"));
        }
        Ok(self
            .root
            .join(kind)
            .join(&key.namespace)
            .join(format!("{}.{extension}", key.name)))
    }

    fn mark(&self) -> Result<(), Error> {
        let path = self.root.join("format");
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == FORMAT) {
            return Ok(());
        }
        fs::write(&path, format!("{FORMAT}\n")).map_err(|error| error::io("write", &path, error))?;
        file::sync_folder(&self.root)
    }

    fn wipe_runtime(&self) -> Result<(), Error> {
        let runtime = self.runtime();
        if runtime.exists() {
            fs::remove_dir_all(&runtime).map_err(|error| error::io("empty", &runtime, error))?;
        }
        file::make_folder(&runtime)
    }
}

fn absolute(root: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(root).map_err(|error| error::io("find", root, error))
}

/// Refuses a directory that holds something else, before anything is written to it.
fn refuse_foreign(root: &Path) -> Result<(), Error> {
    let refuse = |detail: String| {
        Err(
            Error::new(Kind::Foreign, "use", format!("{} as a state directory", root.display()))
                .detail(detail)
                .remedy("choose an empty or new folder with --state"),
        )
    };
    let marker = root.join("format");
    let mut known = &OURS[..];
    match fs::read_to_string(&marker) {
        Ok(text) if text.trim() == FORMAT => return Ok(()),
        // Torn by a crash while it was first written: whoever works here next writes it again.
        Ok(text) if FORMAT.starts_with(text.trim()) => {}
        Ok(text) => {
            let found: String = text.trim().chars().take(40).collect();
            return refuse(format!(
                "its file `format` says {found:?}, this version of vmferry reads {FORMAT:?}"
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => known = &FIRST,
        Err(error) => return Err(error::io("read", &marker, error)),
    }
    let listing = match fs::read_dir(root) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error::io("list", root, error)),
    };
    for entry in listing {
        let name = entry.map_err(|error| error::io("list", root, error))?.file_name();
        if !known.iter().any(|ours| name == *ours) {
            return refuse(format!("it holds {}, which vmferry did not make", name.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_hears_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path().join("s")).unwrap();
        let error = StateDir::open(dir.path().join("s")).unwrap_err();
        assert_eq!(error.kind(), Kind::Locked);
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(StateDir::look(dir.path().join("s")).is_ok(), "reading needs no lock");
        drop(first);
        assert!(StateDir::open(dir.path().join("s")).is_ok());
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "dear").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Foreign);
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_only_looks_like_one_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(dir.path().join("run/thesis.txt"), "dear").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Foreign, "{error}");
        assert!(dir.path().join("run/thesis.txt").exists());
    }

    #[test]
    fn a_newer_layout_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "vmferry state 2\n").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("vmferry state 2"), "{error}");
    }

    #[test]
    fn a_crash_while_it_was_first_made_is_no_harm() {
        for torn in ["", "vmferry st"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("lock"), "1").unwrap();
            fs::write(dir.path().join("format"), torn).unwrap();
            StateDir::open(dir.path()).unwrap();
            assert_eq!(
                fs::read_to_string(dir.path().join("format")).unwrap(),
                "vmferry state 1\n"
            );
        }
    }

    #[test]
    fn sockets_of_a_process_that_crashed_are_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(state.runtime().join("sock"), "").unwrap();
        drop(state);
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(state.runtime()).unwrap().count(), 0);
    }

    #[test]
    fn names_never_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for bad in ["..", ".", "", "a/b", "/etc", ".hidden", "a\0b", "a\nb"] {
            assert!(
                state.path("migrations", &Key::new("default", bad), "json").is_err(),
                "{bad:?}"
            );
            assert!(
                state.path("migrations", &Key::new(bad, "web"), "json").is_err(),
                "{bad:?}"
            );
        }
    }
}
