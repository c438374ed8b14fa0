//! Formats as the command line and file names say them, and what content looks like.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use vmferry_image::ImageFormat;

use super::place::Place;
use crate::exit::Failure;

/// A format of an image that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Read by vmferry itself.
    Native(ImageFormat),
    /// Read by qemu-nbd: the name of QEMU's driver.
    Foreign(&'static str),
}

/// Names of foreign formats: QEMU's, and what else people call them.
const FOREIGN: [(&str, &str); 11] = [
    ("bochs", "bochs"),
    ("cloop", "cloop"),
    ("dmg", "dmg"),
    ("hdd", "parallels"),
    ("parallels", "parallels"),
    ("qcow", "qcow"),
    ("qed", "qed"),
    ("vdi", "vdi"),
    ("vhd", "vpc"),
    ("vhdx", "vhdx"),
    ("vpc", "vpc"),
];

/// How contents begin: where, with what, and the name of the format.
const MAGICS: [(usize, &[u8], &str); 12] = [
    (0, b"QFI\xfb\0\0\0\x01", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"conectix", "vpc"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
];

/// Bytes at the front of a file in which every known content shows.
pub const FRONT: usize = 512;

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Result<Self, Failure> {
        if let Ok(format) = name.parse() {
            return Ok(Self::Native(format));
        }
        if name == "luks" {
            return Err(Failure::failed(
                "luks images need a passphrase, which is not asked for here; open the image yourself \
                 (qemu-nbd --object secret,… --image-opts driver=luks,…) and give its nbd+unix:// place",
            ));
        }
        let foreign = FOREIGN.iter().find(|(known, _)| *known == name);
        foreign.map(|(_, driver)| Self::Foreign(driver)).ok_or_else(|| {
            Failure::bad_input(format!(
                "image format {name:?} is not known: use raw, qcow2, vmdk, or one of those that qemu-nbd reads: bochs, \
                 cloop, dmg, parallels, qcow, qed, vdi, vhdx, vpc"
            ))
        })
    }

    /// The format that a file name says.
    pub fn of_name(name: &OsStr) -> Option<Self> {
        let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "img" => Some(Self::Native(ImageFormat::Raw)),
            "qcow" | "dmg" => None,
            known => Self::named(known).ok(),
        }
    }

    /// The format of a place: the one that is given, else the one that its name says. What comes over NBD is raw.
    pub fn of_place(place: &Place, given: Option<&str>, option: &str) -> Result<Self, Failure> {
        if let Some(name) = given {
            return Self::named(name);
        }
        if matches!(place, Place::Nbd(_)) {
            return Ok(Self::Native(ImageFormat::Raw));
        }
        let by_name = place.file_name().and_then(|name| Self::of_name(&name));
        by_name.ok_or_else(|| {
            Failure::bad_input(format!(
                "{place}: its name does not say its format, and its content is not asked; give {option} raw, qcow2 or vmdk"
            ))
        })
    }

    /// The name of the format that the front of a file looks like.
    pub fn looks_like(front: &[u8]) -> Option<&'static str> {
        let found = MAGICS
            .iter()
            .find(|(at, magic, _)| front.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
        found.map(|(_, _, name)| *name)
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native(format) => format.as_str(),
            Self::Foreign(driver) => driver,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_formats() {
        for (name, format) in [
            ("a.raw", Some("raw")),
            ("a.IMG", Some("raw")),
            ("a.b.qcow2", Some("qcow2")),
            ("a.vmdk", Some("vmdk")),
            ("a.vhd", Some("vpc")),
            ("a.vhdx", Some("vhdx")),
            ("a.iso", None),
            ("qcow2", None),
            ("a.luks", None),
        ] {
            let found = Format::of_name(OsStr::new(name));
            assert_eq!(found.map(Format::as_str), format, "{name}");
        }
    }

    #[test]
    fn only_known_formats_are_taken() {
        for name in ["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc", "qed", "parallels"] {
            assert_eq!(Format::named(name).unwrap().as_str(), name);
        }
        for name in ["", "img", "nbd", "file", "raw,driver=x", "QCOW2"] {
            assert!(Format::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn contents_are_recognised() {
        let mut vdi = vec![0; FRONT];
        vdi[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        assert_eq!(Format::looks_like(&vdi), Some("vdi"));
        assert_eq!(Format::looks_like(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(Format::looks_like(b"QFI\xfb\0\0\0\x01"), Some("qcow"));
        assert_eq!(Format::looks_like(&[0; FRONT]), None);
        assert_eq!(Format::looks_like(b""), None);
    }
}
