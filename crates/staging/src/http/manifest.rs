//! Which segments make up an object.
//!
//! `<key>.manifest.json` says it, and `cat <key>.parts/*/*` gives the object: the segments lie in one folder below
//! `<key>.parts/`, and their names sort as their places do.

use serde::{Deserialize, Serialize};

use super::names::segment;

/// What the first two fields say.
const FORMAT: &str = "vmferry-segments";
const VERSION: u32 = 1;
/// The longest manifest that is read, in bytes: a hundred thousand segments and more.
pub(super) const LONGEST: usize = 32 << 20;

/// The segments of an object, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    format: String,
    version: u32,
    /// The folder of the segments below `<key>.parts/`: the upload's number in hexadecimal.
    pub(super) folder: String,
    /// Length of the object in bytes.
    pub(super) length: u64,
    /// Length of every segment but the last, which may be shorter.
    pub(super) part_size: u64,
    pub(super) count: u32,
    pub(super) segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) length: u64,
    /// Its `ETag` and `Last-Modified` when it came.
    pub(super) tag: String,
}

impl Manifest {
    pub(super) fn new(folder: String, length: u64, part_size: u64, tags: Vec<String>) -> Self {
        let segments: Vec<Segment> = (0..)
            .zip(tags)
            .map(|(number, tag)| Segment {
                name: segment(number),
                length: part_size.min(length.saturating_sub(u64::from(number) * part_size)),
                tag,
            })
            .collect();
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            folder,
            length,
            part_size,
            count: segments.len() as u32,
            segments,
        }
    }

    /// Reads a manifest; `None` where the text is none of ours, in every field: what it names becomes part of URLs.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        let is_folder = read.folder.len() == 16 && read.folder.chars().all(|c| c.is_ascii_hexdigit());
        let fits = read.part_size > 0 && read.length.div_ceil(read.part_size) == read.segments.len() as u64;
        if !is_folder || !fits {
            return None;
        }
        let tags = read.segments.iter().map(|segment| segment.tag.clone()).collect();
        let ours = Self::new(read.folder.clone(), read.length, read.part_size, tags);
        (ours == read).then_some(read)
    }

    pub(super) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The object's version: no other upload has it.
    pub(super) fn object_version(&self) -> String {
        format!("segments {} {}", self.folder, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_wrote_is_read() {
        let tags = ["a", "b", "c"].map(str::to_owned).to_vec();
        let manifest = Manifest::new("0123456789abcdef".to_owned(), 25, 10, tags);
        assert_eq!(manifest.segments[2].length, 5);
        let text = manifest.text().unwrap();
        assert_eq!(Manifest::parse(&text), Some(manifest));
        for (from, to) in [
            ("0123456789abcdef", "../../../../abcd"),
            ("00000001", "../../0001"),
            ("\"length\": 25", "\"length\": 35"),
            ("\"length\": 5", "\"length\": 6"),
            ("\"version\": 1", "\"version\": 2"),
            ("vmferry-segments", "others"),
            ("\"partSize\": 10", "\"partSize\": 0"),
        ] {
            assert!(text.contains(from));
            assert_eq!(Manifest::parse(&text.replacen(from, to, 1)), None, "{from} -> {to}");
        }
    }
}
