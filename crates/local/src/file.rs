//! Files that are replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{self, Error, Kind};

/// What names of files end with while they are being written.
const UNFINISHED: &str = ".tmp";

/// Makes a folder and those above it, for the user alone.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| error::io("create", path, error))
}

/// Replaces a file, or makes it: afterwards it is the new one, durable; after a crash before that, the old one, whole.
pub(crate) fn replace(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::new(Kind::Io, "write", path.display().to_string()).source(error))?;
    text.push(b'\n');
    let folder = path.parent().unwrap_or(path);
    let new_folder = !folder.exists();
    make_folder(folder)?;
    let beside = beside(path);
    let written = write_durably(&beside, &text).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error::io("write", path, error));
    }
    sync_folder(folder)?;
    match folder.parent() {
        Some(above) if new_folder => sync_folder(above),
        _ => Ok(()),
    }
}

/// The file that is written before it takes the place of `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(UNFINISHED);
    path.with_file_name(name)
}

fn write_durably(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Makes what was renamed, made or removed in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| error::io("sync", path, error))
}

/// Removes a file, durably. Gone is success.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => {
            let folder = path.parent().unwrap_or(path);
            sync_folder(folder)?;
            // Fails where another file is in it, which is as it should be.
            let _ = fs::remove_dir(folder);
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error::io("remove", path, error)),
    }
}

/// Reads a file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|error| error::io("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(Kind::Corrupt, "read", format!("the state file {}", path.display()))
            .detail(format!("it is not what vmferry wrote: {error}"))
            .remedy("nothing was changed: restore the file or repair it by hand; without it, what its migration made must be removed by hand")
    })
}

/// The `<namespace>/<name>.json` files below a folder, sorted. What a crash left half-written is not among them.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for namespace in entries(folder)? {
        if !namespace.is_dir() {
            continue;
        }
        for file in entries(&namespace)? {
            let hidden = file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && file.extension().is_some_and(|extension| extension == "json") {
                found.push(file);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what a crash left half-written below a folder.
pub(crate) fn sweep(folder: &Path) -> Result<(), Error> {
    for namespace in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        for file in entries(&namespace)? {
            if file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().ends_with(UNFINISHED.as_bytes()))
            {
                remove(&file)?;
            }
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error::io("list", folder, error)),
    };
    listing
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| error::io("list", folder, error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns/name.json");
        for value in ["one", "a longer one", "2"] {
            replace(&path, &value).unwrap();
            assert_eq!(read::<String>(&path).unwrap(), value);
        }
        assert_eq!(entries(&dir.path().join("ns")).unwrap(), std::slice::from_ref(&path));
    }

    #[test]
    fn what_a_crash_left_half_written_is_ignored_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns/name.json");
        replace(&path, &"whole").unwrap();
        fs::write(beside(&path), "{\"torn").unwrap();
        fs::write(beside(&dir.path().join("ns/other.json")), "").unwrap();
        assert_eq!(list(dir.path()).unwrap(), std::slice::from_ref(&path));
        assert_eq!(read::<String>(&path).unwrap(), "whole");
        sweep(dir.path()).unwrap();
        assert_eq!(entries(&dir.path().join("ns")).unwrap(), [path]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns/name.json");
        replace(&path, &"old").unwrap();
        // A folder in the way of the file that is written first.
        fs::create_dir(beside(&path)).unwrap();
        let error = replace(&path, &"new").unwrap_err().to_string();
        assert!(error.contains("name.json"), "{error}");
        assert_eq!(read::<String>(&path).unwrap(), "old");
    }

    proptest! {
        #[test]
        fn damage_is_told_with_the_name_of_the_file_and_never_a_panic(cut in 0_usize..40, junk in proptest::collection::vec(any::<u8>(), 0..8)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("name.json");
            let mut text = serde_json::to_vec(&serde_json::json!({ "a": [1, 2], "b": "text", "c": null })).unwrap();
            text.truncate(cut);
            text.extend(junk);
            fs::write(&path, &text).unwrap();
            if let Err(error) = read::<serde_json::Value>(&path) {
                prop_assert_eq!(error.kind(), Kind::Corrupt);
                prop_assert!(error.to_string().contains("name.json"));
            }
            prop_assert_eq!(fs::read(&path).unwrap(), text);
        }
    }
}
