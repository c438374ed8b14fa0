//! The descriptor: the text in front of the grains.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a disk without parent has in place of its parent's content id [parentCID].
const NO_PARENT: &str = "ffffffff";

/// The disk controller that a descriptor names [ddb.adapterType]. The virtual machine's own hardware decides what the disk
/// hangs on; VMware wants the two to be of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adapter {
    /// For IDE and SATA controllers.
    Ide,
    /// For the BusLogic SCSI controller.
    BusLogic,
    /// For the LSI Logic SCSI and SAS controllers and for PVSCSI.
    #[default]
    LsiLogic,
}

impl Adapter {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::BusLogic => "buslogic",
            Self::LsiLogic => "lsilogic",
        }
    }

    /// Heads and sectors of a track as this controller counts them, and the most cylinders.
    fn geometry(self) -> (u64, u64, u64) {
        match self {
            Self::Ide => (16, 63, 16_383),
            Self::BusLogic | Self::LsiLogic => (255, 63, 65_535),
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text for a disk of `capacity` sectors. Its content id is the one that VMware's own tools give to a disk that was
/// never attached, so that equal disks give equal files.
pub(super) fn render(capacity: u64, adapter: Adapter) -> String {
    let (heads, sectors, most) = adapter.geometry();
    let cylinders = (capacity / (heads * sectors)).clamp(1, most);
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID=fffffffe\n\
         parentCID={NO_PARENT}\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RW {capacity} SPARSE \"disk.vmdk\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{sectors}\"\n\
         ddb.adapterType = \"{adapter}\"\n\
         ddb.toolsVersion = \"2147483647\"\n"
    )
}

/// What the reader of a stream must know of a descriptor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// The content id of the parent, where there is one: the file holds only what differs from it.
    pub parent: Option<String>,
    /// How many files the disk has.
    pub extents: usize,
    /// The disk controller, as the file spells it.
    pub adapter: Option<String>,
}

impl Descriptor {
    /// Reads the text up to its first zero byte.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut found = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if ["RW ", "RDONLY ", "NOACCESS "]
                .iter()
                .any(|access| line.starts_with(access))
            {
                found.extents += 1;
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "parentcid" if !value.eq_ignore_ascii_case(NO_PARENT) => found.parent = Some(short(value)),
                "ddb.adaptertype" => found.adapter = Some(short(value)),
                _ => {}
            }
        }
        found
    }
}

/// A value that goes into messages: no longer than any sound one.
fn short(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        for adapter in [Adapter::Ide, Adapter::BusLogic, Adapter::LsiLogic] {
            let mut text = render(1 << 40, adapter).into_bytes();
            assert!(text.len() < 1024);
            text.extend([0; 100]);
            let expected = Descriptor {
                parent: None,
                extents: 1,
                adapter: Some(adapter.to_string()),
            };
            assert_eq!(Descriptor::parse(&text), expected);
        }
    }

    #[test]
    fn finds_a_parent_however_it_is_spelled() {
        let found =
            Descriptor::parse(b" ParentCID = 1234abcd\r\nRW 1 SPARSE \"a\"\r\nRW 1 SPARSE \"b\"\r\n\0parentCID=0");
        assert_eq!(found.parent.as_deref(), Some("1234abcd"));
        assert_eq!(found.extents, 2);
    }
}
