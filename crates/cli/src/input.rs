//! Reading manifests from files, folders and standard input.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use vmferry_api::manifest::{Manifests, Source};

use crate::exit::Failure;

/// A manifest file is no longer than this, in bytes.
const MAX_LEN: u64 = 16 << 20;

/// The path that means standard input.
const STDIN: &str = "-";

/// What was read.
pub struct Input {
    /// What is declared.
    pub manifests: Manifests,
    /// Where it came from, absolute; empty where any of it came from standard input.
    pub paths: Vec<PathBuf>,
}

/// Reads and parses everything at `paths`.
///
/// # Errors
/// Everything that is wrong, as bad input.
pub fn read(paths: &[PathBuf]) -> Result<Input, Failure> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match sources_of(path) {
            Ok(found) => sources.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(Failure::all_bad(errors));
    }
    let manifests = Manifests::parse(&sources).map_err(Failure::all_bad)?;
    Ok(Input {
        manifests,
        paths: remembered(paths),
    })
}

/// The paths by which the same manifests are found again.
fn remembered(paths: &[PathBuf]) -> Vec<PathBuf> {
    if paths.iter().any(|path| path == Path::new(STDIN)) {
        return Vec::new();
    }
    paths.iter().filter_map(|path| std::path::absolute(path).ok()).collect()
}

fn sources_of(path: &Path) -> Result<Vec<Source>, String> {
    if path == Path::new(STDIN) {
        return text_of(std::io::stdin().lock(), "stdin").map(|source| vec![source]);
    }
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| format!("{name}: cannot be read: {error}");
    if !std::fs::metadata(path).map_err(cannot)?.is_dir() {
        let file = File::open(path).map_err(cannot)?;
        return text_of(file, &name).map(|source| vec![source]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(cannot)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| is_manifest(path))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{name}: the folder holds no .yaml, .yml or .json file"));
    }
    files
        .iter()
        .map(|file| sources_of(file))
        .collect::<Result<Vec<_>, _>>()
        .map(|found| found.concat())
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let known = ["yaml", "yml", "json"].map(OsStr::new);
    !hidden && path.extension().is_some_and(|extension| known.contains(&extension)) && path.is_file()
}

fn text_of(reader: impl Read, name: &str) -> Result<Source, String> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_LEN + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(format!(
            "{name}: is longer than {} MiB, which no manifest is",
            MAX_LEN >> 20
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{name}: is not UTF-8 text"))?;
    Ok(Source {
        name: name.to_owned(),
        text,
    })
}
