//! Objects of more parts than the server takes.
//!
//! An upload of which it is only known how long it will be at most may need more parts than the 10,000 of S3, and parts that are
//! larger do not fit the memory. Its first parts are parts of the object as ever. Those that may be too many go into *segments*:
//! a segment is an upload and then an object of its own, `.<name>.segments/<mark>/<number>`, of a GiB. Once it has all of its parts,
//! the server copies it into the object's upload as one part (`UploadPartCopy`), and it is deleted. So what is copied is what a short
//! object does not have, copying goes on while parts arrive, and few segments are there at any time.
//!
//! - `cut` says which part goes where.
//! - `known` is what is known of an upload's pieces, and how that is found out from the server's lists.
//! - `put` puts parts, `join` makes segments parts of their object, `probe` finds out whether the server can do that.
//!
//! Architecture Invariant: all that there is to know stands in the server's own lists: parts, uploads, objects. Each step leaves what
//! the next one needs, whoever does it: a segment is deleted when it is a part of the object, and not before. What is left of segments
//! goes before the object gets its name, and with an abort.

mod cut;
mod join;
mod known;
mod probe;
mod put;

pub(super) use cut::{Cut, Shape};
pub(super) use known::Segments;

use super::small;
use crate::ObjectKey;

/// The names of all segments of an object begin so.
fn folder(key: &ObjectKey) -> String {
    format!("{}/", small::name_beside(key, "segments"))
}

/// The names of the segments of one upload begin so.
fn folder_of(key: &ObjectKey, mark: &str) -> String {
    format!("{}{mark}/", folder(key))
}

/// The name of a segment.
fn name_of(key: &ObjectKey, mark: &str, segment: u32) -> String {
    format!("{}{segment:05}", folder_of(key, mark))
}

/// The number of a segment of this folder.
fn number_in(folder: &str, name: &str) -> Option<u32> {
    name.strip_prefix(folder)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_numbers() {
        let key: ObjectKey = "ns/vm/disk-0.vmdk".parse().unwrap();
        let name = name_of(&key, "0123456789abcdef", 7);
        assert_eq!(name, "ns/vm/.disk-0.vmdk.segments/0123456789abcdef/00007");
        assert!(name.starts_with(&folder(&key)) && name.parse::<ObjectKey>().is_err());
        let own = folder_of(&key, "0123456789abcdef");
        assert_eq!(number_in(&own, &name), Some(7));
        assert_eq!(
            number_in(&own, &name_of(&key, "0123456789abcdef", 123_456)),
            Some(123_456)
        );
        assert_eq!(number_in(&own, &name_of(&key, "fedcba9876543210", 7)), None);
        assert_eq!(number_in(&own, &format!("{own}probe")), None);
    }
}
