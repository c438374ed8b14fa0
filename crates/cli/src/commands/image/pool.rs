//! The folder in which the other files of an image may lie.
//!
//! What an image names as its backing file, or as the file of a part of its disk, was written by whoever made the image.
//! Followed blindly, it reads any file, device or server that this user can. So it is followed only as a plain path to a
//! plain file inside one folder, and the kernel holds the walk to that: `openat2(2)` with `RESOLVE_BENEATH` and without
//! links of any kind.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use vmferry_block::LocalFile;
use vmferry_fault::Fault;
use vmferry_image::{BackingRef, Error, ExtentRef, ImageFormat, Kind, Opener, Source};

const REMEDY: &str =
    "put it into that folder, name its folder with --pool, or flatten the image first: qemu-img convert";

/// An open folder, and which images lie where in it.
pub struct Pool {
    folder: OwnedFd,
    /// Its path without links.
    path: PathBuf,
    /// Its path as it was given: absolute references may go by it.
    given: PathBuf,
    /// The format of backing files whose format is not recorded.
    unrecorded: Option<ImageFormat>,
    /// Folders of the images that were opened, by the names that they have in messages.
    folders: Mutex<HashMap<String, PathBuf>>,
}

impl Pool {
    /// Opens the folder `pool`, or that of `image` where none is given. Blocks.
    pub fn open(image: &Path, pool: Option<&Path>, unrecorded: Option<ImageFormat>) -> std::io::Result<Self> {
        let home = match image.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let home_path = home.canonicalize()?;
        let given = std::path::absolute(pool.unwrap_or(home))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&given, flags, Mode::empty())?;
        let folders = HashMap::from([(name_of(image), home_path)]);
        Ok(Self {
            folder,
            path: given.canonicalize()?,
            given,
            unrecorded,
            folders: Mutex::new(folders),
        })
    }

    /// Where `reference` in the image `from` leads: its path, and that from the folder on. `Err` says why it is refused.
    fn resolve(&self, from: &str, reference: &str) -> Result<(PathBuf, PathBuf), String> {
        // QEMU takes everything up to a colon before the first slash for a protocol (`path_has_protocol`).
        let front = reference.split('/').next().unwrap_or_default();
        if reference.is_empty() || front.contains(':') {
            return Err("it is not a plain path".to_owned());
        }
        if reference.chars().any(char::is_control) {
            return Err("it holds a control character".to_owned());
        }
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let home = folders.get(from).ok_or("the image that names it is not known")?;
        let path = normal(&home.join(reference));
        let inner = path
            .strip_prefix(&self.path)
            .or_else(|_| path.strip_prefix(&self.given));
        match inner {
            Ok(inner) if inner != Path::new("") => Ok((self.path.join(inner), inner.to_owned())),
            _ => Err(format!("it lies outside of {}", self.path.display())),
        }
    }

    /// Opens the file that `reference` in the image `from` names.
    async fn follow(&self, from: &str, reference: &str, what: &str, format: ImageFormat) -> Result<Source, Error> {
        let object = format!("{what} {reference:?} of image {from}");
        let hostile = |why: String| {
            Fault::new(Kind::Hostile, "follow", object.clone())
                .detail(why)
                .remedy(REMEDY)
        };
        let (path, inner) = self.resolve(from, reference).map_err(hostile)?;
        let opened = tokio::task::block_in_place(|| self.open_beneath(&inner));
        let file = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::XDEV => hostile("a link is on the way".to_owned()),
            Errno::NOENT | Errno::NOTDIR => Fault::new(Kind::Missing, "follow", object.clone())
                .detail(format!("there is no file {}", path.display()))
                .remedy("put it back, or name its folder with --pool"),
            Errno::INVAL => hostile("it is not a plain file".to_owned()),
            Errno::NOSYS => Fault::new(Kind::Unsupported, "follow", object.clone())
                .detail("this kernel cannot keep to a folder (openat2)")
                .remedy("use Linux 5.6 or newer, or flatten the image first: qemu-img convert"),
            errno => Fault::new(Kind::Io, "open", object.clone()).source(std::io::Error::from(errno)),
        })?;
        let io = |error| Fault::new(Kind::Io, "open", object.clone()).source(error);
        let file = LocalFile::from_file(file).await.map_err(io)?;
        let holes = match format {
            ImageFormat::Raw => Some(file.data_extents().await.map_err(io)?),
            ImageFormat::Qcow2 | ImageFormat::Vmdk => None,
        };
        let name = name_of(&path);
        let home = path.parent().unwrap_or(&self.path).to_owned();
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.insert(name.clone(), home);
        let mut source = Source::new(name, format, Arc::new(file));
        source.holes = holes;
        Ok(source)
    }

    fn open_beneath(&self, path: &Path) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let file = File::from(rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve)?);
        match file.metadata() {
            Ok(found) if found.is_file() => Ok(file),
            _ => Err(Errno::INVAL),
        }
    }
}

#[async_trait]
impl Opener for Pool {
    async fn open_backing(&self, backing: &BackingRef) -> Result<Source, Error> {
        let object = || format!("backing file {:?} of image {}", backing.path, backing.from);
        let format = match (backing.format.as_deref(), self.unrecorded) {
            (Some(recorded), _) => recorded.parse().map_err(|_| {
                Fault::new(Kind::Unsupported, "follow", object())
                    .detail(format!(
                        "its recorded format is {recorded:?}; backing files are read as raw, qcow2 or vmdk"
                    ))
                    .remedy("flatten the image first: qemu-img convert")
            })?,
            (None, Some(format)) => format,
            (None, None) => {
                return Err(Fault::new(Kind::Hostile, "follow", object())
                    .detail("its format is not recorded, and is never guessed from its content")
                    .remedy("give it with --backing-format, or record it: qemu-img rebase -u -F FORMAT"));
            }
        };
        self.follow(&backing.from, &backing.path, "backing file", format).await
    }

    async fn open_extent(&self, extent: &ExtentRef) -> Result<Source, Error> {
        self.follow(&extent.from, &extent.path, "extent", extent.format).await
    }
}

/// How a file is called in messages, and by the image reader.
pub fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// The path without `.`, `..` and doubled slashes. Where it holds no links, it leads to the same file.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn pool() -> (tempfile::TempDir, Pool) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("base"), "b").unwrap();
        let pool = Pool::open(&folder.path().join("top"), None, None).unwrap();
        (folder, pool)
    }

    #[test]
    fn only_plain_paths_into_the_folder_are_followed() {
        let (folder, pool) = pool();
        let top = name_of(&folder.path().join("top"));
        let inner = |reference: &str| pool.resolve(&top, reference).map(|(_, inner)| inner);
        assert_eq!(inner("base").unwrap(), Path::new("base"));
        assert_eq!(inner("./sub/../base").unwrap(), Path::new("base"));
        assert_eq!(inner("sub//x").unwrap(), Path::new("sub/x"));
        assert_eq!(
            inner(folder.path().join("base").to_str().unwrap()).unwrap(),
            Path::new("base")
        );
        for bad in [
            "",
            ".",
            "../x",
            "/etc/passwd",
            "json:{}",
            "nbd://h/x",
            "file:base",
            "a\nb",
            "sub/../../x",
        ] {
            assert!(inner(bad).is_err(), "{bad:?}");
        }
        assert!(pool.resolve("other", "base").is_err());
    }

    #[test]
    fn links_and_what_is_no_file_are_not_opened() {
        let (folder, pool) = pool();
        symlink("base", folder.path().join("link")).unwrap();
        symlink("/etc", folder.path().join("out")).unwrap();
        assert!(pool.open_beneath(Path::new("base")).is_ok());
        for bad in ["link", "out/passwd", "sub", "nothing", "../base", "/etc/passwd"] {
            assert!(pool.open_beneath(Path::new(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_followed_lies_inside(reference in "[./a]{0,12}") {
            let (folder, pool) = pool();
            if let Ok((path, inner)) = pool.resolve(&name_of(&folder.path().join("top")), &reference) {
                prop_assert!(path.starts_with(&pool.path));
                prop_assert!(inner.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
