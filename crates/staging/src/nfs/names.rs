//! The names of files that are not objects, and what tells one file from another.
//!
//! - `.<name>.<upload>.part` is an upload of the object `<name>`,
//! - `.<name>.note` its note, and `.<name>.<id>.new` a note on its way.

use std::fmt;

use crate::{Error, Kind, UploadId};

/// What an upload id says: it stands for itself in any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Upload {
    nonce: u64,
    /// The most bytes that it can become, and what its file has until it is complete.
    pub(super) most: u64,
    pub(super) part_size: u64,
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:x}", self.nonce, self.most, self.part_size)
    }
}

impl Upload {
    /// A new one. `object` is how messages name the object.
    pub(super) fn new(most: u64, part_size: u64, object: impl Fn() -> String) -> Result<Self, Error> {
        if part_size == 0 {
            return Err(Error::new(Kind::Bug, "upload", object()).detail("parts of no bytes"));
        }
        Ok(Self {
            nonce: rand::random(),
            most,
            part_size,
        })
    }

    /// Reads an id; `None` where it is none of ours. It becomes part of a file name, so only the one way to write it counts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-').map(|field| u64::from_str_radix(field, 16).ok());
        let upload = Self {
            nonce: fields.next()??,
            most: fields.next()??,
            part_size: fields.next()??,
        };
        (upload.to_string() == text && upload.part_size > 0).then_some(upload)
    }

    /// The upload of this id.
    pub(super) fn of(id: &UploadId, object: impl Fn() -> String) -> Result<Self, Error> {
        Self::parse(&id.0).ok_or_else(|| {
            Error::new(Kind::UploadGone, "find", format!("upload {:?} of {}", id.0, object()))
                .detail("it is not an upload of this kind of store")
        })
    }

    /// The name of its file, in the folder of the object `name`.
    pub(super) fn file_name(self, name: &str) -> String {
        format!(".{name}.{self}.part")
    }

    /// Whether `len` bytes at `offset` are part `number`.
    pub(super) fn check_part(
        self,
        number: u32,
        offset: u64,
        len: u64,
        object: impl Fn() -> String,
    ) -> Result<(), Error> {
        let start = u64::from(number) * self.part_size;
        if offset == start && len > 0 && len <= self.part_size && start + len <= self.most {
            return Ok(());
        }
        Err(
            Error::new(Kind::Bug, "upload", format!("part {number} of {}", object())).detail(format!(
                "{len} bytes at {offset} do not fit parts of {} bytes",
                self.part_size
            )),
        )
    }

    /// Whether the parts of these numbers make up `len` bytes.
    pub(super) fn check_whole(self, len: u64, mut numbers: Vec<u32>, object: impl Fn() -> String) -> Result<(), Error> {
        numbers.sort_unstable();
        let parts = len.div_ceil(self.part_size);
        if len <= self.most && numbers.iter().map(|number| u64::from(*number)).eq(0..parts) {
            return Ok(());
        }
        Err(Error::new(Kind::Bug, "complete", object()).detail(format!(
            "{} parts were given, and they are not the {parts} that make up {len} of {} bytes",
            numbers.len(),
            self.most
        )))
    }

    /// The fault of an upload whose file is not there any more.
    pub(super) fn gone(self, object: impl Fn() -> String) -> Error {
        Error::new(Kind::UploadGone, "find", format!("upload {self} of {}", object()))
            .detail("its file is gone or was cut short")
    }
}

/// The name of the note of the object `name`.
pub(super) fn note(name: &str) -> String {
    format!(".{name}.note")
}

/// A new name for a note on its way.
pub(super) fn new_note(name: &str) -> String {
    format!(".{name}.{:016x}.new", rand::random::<u64>())
}

/// A name for the file with which a check tries whether the store can be written.
pub(super) fn probe() -> String {
    format!(".vmferry-{:016x}.check", rand::random::<u64>())
}

/// Whether `file` is an upload or a half-written note of the object `name`, and not of one whose name only begins like it.
pub(super) fn is_partial(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix('.').and_then(|rest| rest.strip_prefix(name));
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let is_upload = rest.strip_suffix(".part").is_some_and(|id| Upload::parse(id).is_some());
    let is_note = rest
        .strip_suffix(".new")
        .is_some_and(|id| id.len() == 16 && id.chars().all(|digit| digit.is_ascii_hexdigit()));
    is_upload || is_note
}

/// The version of a file: inode, time of the last change of its bytes (seconds, nanoseconds), and length.
pub(super) fn version(inode: u64, seconds: i64, nanoseconds: u64, len: u64) -> String {
    format!("{inode:x}-{seconds:x}.{nanoseconds:x}-{len:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_ids_become_file_names() {
        let upload = Upload::new(4096, 512, String::new).unwrap();
        assert_eq!(Upload::parse(&upload.to_string()), Some(upload));
        for bad in [
            "",
            "7-1000-200",
            "0000000000000007-1000-200/../x",
            "0000000000000007-1000",
            "0000000000000007-1000-0",
        ] {
            assert_eq!(Upload::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_abort_knows_its_own_files() {
        let id = "0000000000000007-1000-200";
        assert!(is_partial(&format!(".disk.{id}.part"), "disk"));
        assert!(is_partial(&new_note("disk"), "disk"));
        for other in [
            format!(".disk.x.{id}.part"),
            note("disk"),
            ".disk.x.part".to_owned(),
            "disk".to_owned(),
            format!(".dis.{id}.part"),
        ] {
            assert!(!is_partial(&other, "disk"), "{other}");
        }
    }
}
