//! The XML of storage pools and volumes.

use super::tree::{Element, XmlError};

/// A storage pool as its host describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolXml {
    /// `dir`, `fs`, `netfs`, `logical`, `rbd`, …
    pub kind: String,
    /// Directory of its volumes, where they are files.
    pub path: Option<String>,
}

impl PoolXml {
    /// Reads the answer of `virStoragePoolGetXMLDesc`.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        let root = Element::parse(text)?;
        Ok(Self {
            kind: root.attr("type").unwrap_or_default().to_owned(),
            path: root.text_at(&["target", "path"]).map(str::to_owned),
        })
    }

    /// Whether its volumes are files, in any format.
    pub fn holds_files(&self) -> bool {
        matches!(self.kind.as_str(), "dir" | "fs" | "netfs")
    }
}

/// A volume as its host describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeXml {
    /// Its file.
    pub path: String,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// When content and inode of the file last changed, in seconds with nine digits after the point.
    pub changed: Option<(String, String)>,
}

impl VolumeXml {
    /// Reads the answer of `virStorageVolGetXMLDesc`. `None` where it names no path.
    pub fn parse(text: &str) -> Result<Option<Self>, XmlError> {
        let root = Element::parse(text)?;
        let number = |name: &str| root.text_at(&[name]).and_then(|text| text.parse().ok());
        let time = |name: &str| root.text_at(&["target", "timestamps", name]).map(str::to_owned);
        Ok(root.text_at(&["target", "path"]).map(|path| Self {
            path: path.to_owned(),
            file_bytes: number("physical").or(number("capacity")).unwrap_or_default(),
            changed: time("mtime").zip(time("ctime")),
        }))
    }
}

/// The XML of a new, empty volume: a raw file without a length. What it really is shows when its bytes have come and the
/// pool is refreshed.
pub fn empty_volume(name: &str) -> Result<String, XmlError> {
    let size = |name| Element::new(name).with("unit", "bytes").text_of("0");
    Element::new("volume")
        .child_of(Element::new("name").text_of(name))
        .child_of(size("capacity"))
        .child_of(size("allocation"))
        .child_of(Element::new("target").child_of(Element::new("format").with("type", "raw")))
        .render()
}
