//! The descriptor: the text that says what a disk is made of [The Descriptor File].
//!
//! Nothing in it is trusted: names are passed on as they are, to whoever decides what may be opened.

use super::{CHECK, CONVERT, corrupt};
use crate::error::Refusal;
use crate::info::VmdkExtent;
use crate::vmdk::spec;
use crate::{ImageFormat, Kind};

/// What a descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) version: u32,
    /// Content identifier: changes with the first write after an opening.
    pub(crate) cid: Option<u32>,
    pub(crate) parent: Option<Parent>,
    pub(crate) create_type: String,
    /// In the order of the disk; never empty.
    pub(crate) extents: Vec<ExtentLine>,
}

/// The disk from which a delta disk differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) cid: u32,
    pub(crate) path: String,
}

/// One part of the disk [Extent Descriptions].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentLine {
    /// Length in sectors: not 0, and not more than [`MAX_CAPACITY`](spec::MAX_CAPACITY).
    pub(crate) sectors: u64,
    pub(crate) kind: ExtentKind,
}

/// What an extent is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// The plain bytes of a file from a sector on.
    Flat { path: String, offset: u64 },
    /// A file with grain tables.
    Sparse { path: String },
    /// Zeros.
    Zero,
}

impl ExtentKind {
    /// The file and its format.
    pub(crate) fn file(&self) -> Option<(&str, ImageFormat)> {
        match self {
            Self::Flat { path, .. } => Some((path, ImageFormat::Raw)),
            Self::Sparse { path } => Some((path, ImageFormat::Vmdk)),
            Self::Zero => None,
        }
    }
}

impl ExtentLine {
    /// What it says, for [`Info`](crate::Info).
    pub(crate) fn describe(&self) -> VmdkExtent {
        VmdkExtent {
            kind: match self.kind {
                ExtentKind::Flat { .. } => "flat",
                ExtentKind::Sparse { .. } => "sparse",
                ExtentKind::Zero => "zero",
            },
            size: self.sectors * spec::SECTOR,
            file: self.kind.file().map(|(path, _)| path.to_owned()),
        }
    }
}

/// Types of disks whose extents are files [createType].
const FILE_TYPES: [&str; 13] = [
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "streamOptimized",
    "custom",
    "vmfs",
    "vmfsThin",
    "vmfsThick",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
];

impl Descriptor {
    /// Parses the text up to its first NUL.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let (mut values, mut extents) = (Values::default(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(rest) = access(line)? {
                extents.push(extent(line, rest)?);
                if extents.len() > spec::MAX_EXTENTS {
                    return Err(corrupt(format!("a disk of more than {} extents", spec::MAX_EXTENTS)));
                }
            } else if let Some((key, value)) = line.split_once('=') {
                values.set(key.trim(), value.trim().trim_matches('"'))?;
            }
        }
        values.descriptor(extents)
    }

    /// Length of the disk in sectors, if it is not absurd.
    pub(crate) fn sectors(&self) -> Result<u64, Refusal> {
        let mut sectors = self.extents.iter().map(|extent| extent.sectors);
        let sum = sectors.try_fold(0_u64, u64::checked_add);
        let most = spec::MAX_CAPACITY;
        sum.filter(|sum| *sum <= most)
            .ok_or_else(|| corrupt(format!("a disk of more than {most} sectors")))
    }
}

/// The header lines that matter.
#[derive(Default)]
struct Values {
    version: Option<String>,
    cid: Option<String>,
    parent_cid: Option<String>,
    parent_path: Option<String>,
    create_type: Option<String>,
}

impl Values {
    fn set(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let lower = key.to_ascii_lowercase();
        let encrypted = lower.contains("crypt") || lower.contains("keysafe") || lower.contains("keyid");
        if encrypted || (lower == "ddb.iofilters" && value.contains("crypt")) {
            let detail = format!("its descriptor says {key}: it is encrypted, and vmferry has no key for it");
            let remedy = "decrypt it first: edit the VM's storage policy, or export it as OVF";
            return Err(Refusal::new(Kind::Encrypted, detail, remedy));
        }
        let field = match lower.as_str() {
            "version" => &mut self.version,
            "cid" => &mut self.cid,
            "parentcid" => &mut self.parent_cid,
            "parentfilenamehint" => &mut self.parent_path,
            "createtype" => &mut self.create_type,
            _ => return Ok(()),
        };
        match field.replace(value.to_owned()) {
            Some(before) if before != value => Err(corrupt(format!(
                "its descriptor has two values for {key}: {before:?}, {value:?}"
            ))),
            _ => Ok(()),
        }
    }

    fn descriptor(self, extents: Vec<ExtentLine>) -> Result<Descriptor, Refusal> {
        let (Some(create_type), false) = (self.create_type.clone(), extents.is_empty()) else {
            let detail = "neither a sparse VMDK file nor a descriptor with a createType and extents";
            return Err(Refusal::new(Kind::Corrupt, detail, "name the format that it has"));
        };
        check_type(&create_type)?;
        let version = self.version.as_deref().unwrap_or("1");
        let version = match version.parse() {
            Ok(version) if spec::DESCRIPTOR_VERSIONS.contains(&version) => version,
            _ => return Err(unsupported(format!("descriptor version {version:?}"))),
        };
        Ok(Descriptor {
            version,
            cid: self.cid.as_deref().map(hex).transpose()?,
            parent: self.parent()?,
            create_type,
            extents,
        })
    }

    /// The two values that name a parent must agree: a parent that is overlooked means wrong bytes.
    fn parent(&self) -> Result<Option<Parent>, Refusal> {
        let cid = self.parent_cid.as_deref().map_or(Ok(spec::NO_PARENT), hex)?;
        match &self.parent_path {
            None if cid == spec::NO_PARENT => Ok(None),
            Some(path) if cid != spec::NO_PARENT => Ok(Some(Parent {
                cid,
                path: readable(&name(path)?)?.to_owned(),
            })),
            None => Err(corrupt(format!(
                "a delta of the disk with CID {cid:08x}, which it does not name"
            ))),
            Some(path) => Err(corrupt(format!(
                "it names the parent {path:?}, and says that it has none"
            ))),
        }
    }
}

fn check_type(create_type: &str) -> Result<(), Refusal> {
    if FILE_TYPES.iter().any(|known| known.eq_ignore_ascii_case(create_type)) {
        return Ok(());
    }
    Err(unsupported(format!("a disk of the type {create_type:?}")))
}

/// What follows the access mode, if the line is an extent's.
fn access(line: &str) -> Result<Option<&str>, Refusal> {
    let Some((access, rest)) = line.split_once(char::is_whitespace) else {
        return Ok(None);
    };
    match access {
        "RW" | "RDONLY" => Ok(Some(rest.trim_start())),
        "NOACCESS" => Err(unsupported(format!("the extent {line:?} must not be accessed"))),
        _ => Ok(None),
    }
}

fn extent(line: &str, rest: &str) -> Result<ExtentLine, Refusal> {
    let bad = || corrupt(format!("its descriptor has the extent {line:?}"));
    let (sectors, rest) = rest.split_once(char::is_whitespace).ok_or_else(bad)?;
    let sectors = sectors
        .parse()
        .ok()
        .filter(|sectors| (1..=spec::MAX_CAPACITY).contains(sectors));
    let rest = rest.trim_start();
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (path, after) = match rest.trim_start().strip_prefix('"').map(|rest| rest.split_once('"')) {
        Some(parts) => parts.map(|(path, after)| (Some(path), after)).ok_or_else(bad)?,
        None => (None, rest),
    };
    let path = || path.ok_or_else(bad).and_then(name);
    let kind = match kind {
        "ZERO" => ExtentKind::Zero,
        "SPARSE" => ExtentKind::Sparse { path: path()? },
        "FLAT" | "VMFS" => ExtentKind::Flat {
            path: path()?,
            offset: match after.split_whitespace().next() {
                None => 0,
                Some(offset) => offset
                    .parse()
                    .ok()
                    .filter(|at| *at <= spec::MAX_CAPACITY)
                    .ok_or_else(bad)?,
            },
        },
        "VMFSSPARSE" => return Err(unsupported("an ESX Server sparse extent (COWD)")),
        "SESPARSE" => return Err(unsupported("a space-efficient sparse extent (seSparse)")),
        other => return Err(unsupported(format!("an extent of the type {other:?}"))),
    };
    let sectors = sectors.ok_or_else(bad)?;
    Ok(ExtentLine { sectors, kind })
}

fn name(path: &str) -> Result<String, Refusal> {
    if path.is_empty() {
        return Err(corrupt("its descriptor has an empty file name"));
    }
    Ok(path.to_owned())
}

/// The name of a file that is to be opened. VMware's programs on Windows write them in the code page of the machine, which does not
/// matter where the disk is in the one file that one has.
pub(crate) fn readable(path: &str) -> Result<&str, Refusal> {
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Err(unsupported(format!(
            "a file name that is not in UTF-8: {path:?} (the descriptor says in which encoding it is)"
        )));
    }
    Ok(path)
}

fn hex(text: &str) -> Result<u32, Refusal> {
    u32::from_str_radix(text, 16).map_err(|_| Refusal::new(Kind::Corrupt, format!("the CID {text:?}"), CHECK))
}

fn unsupported(detail: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Unsupported, detail, CONVERT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\nCID=12ab\nparentCID=ffffffff\ncreateType=\"custom\"\n";

    fn parse(rest: &str) -> Result<Descriptor, Refusal> {
        Descriptor::parse(format!("{HEAD}{rest}").as_bytes())
    }

    #[test]
    fn extents_of_every_kind() {
        let text =
            "RW 100 SPARSE \"a b-s001.vmdk\"\r\nRDONLY 5 ZERO\n RW 7 FLAT \"ä.vmdk\" 9\nRW 8 VMFS \"c\"\n\0RW 9 ZERO";
        let found = parse(text).unwrap();
        let kinds: Vec<_> = found.extents.iter().map(|e| (e.sectors, e.kind.clone())).collect();
        let flat = |path: &str, offset| ExtentKind::Flat {
            path: path.into(),
            offset,
        };
        let sparse = ExtentKind::Sparse {
            path: "a b-s001.vmdk".into(),
        };
        assert_eq!(
            kinds,
            [
                (100, sparse),
                (5, ExtentKind::Zero),
                (7, flat("ä.vmdk", 9)),
                (8, flat("c", 0))
            ]
        );
        assert_eq!(
            (found.cid, found.parent.is_none(), found.sectors().unwrap()),
            (Some(0x12ab), true, 120)
        );
    }

    #[test]
    fn extents_that_no_number_holds_together_are_refused() {
        // 1024 of them come to 2^64 sectors.
        let disk = parse(&"RW 18014398509481984 ZERO\n".repeat(1024)).unwrap();
        assert_eq!(disk.sectors().unwrap_err().kind, Kind::Corrupt);
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            ("", Kind::Corrupt),
            ("RW x ZERO", Kind::Corrupt),
            ("RW 0 ZERO", Kind::Corrupt),
            ("RW 99999999999999999 ZERO", Kind::Corrupt),
            ("RW 1 SPARSE", Kind::Corrupt),
            ("RW 1 SPARSE \"a", Kind::Corrupt),
            ("RW 1 SPARSE \"\"", Kind::Corrupt),
            ("RW 1 FLAT \"a\" -1", Kind::Corrupt),
            ("RW 1 VMFSSPARSE \"a\"", Kind::Unsupported),
            ("RW 1 SESPARSE \"a\"", Kind::Unsupported),
            ("RW 1 VMFSRDM \"a\"", Kind::Unsupported),
            ("NOACCESS 1 ZERO", Kind::Unsupported),
            ("RW 1 ZERO\nparentFileNameHint=\"p\"", Kind::Corrupt),
            ("RW 1 ZERO\nparentCID=1", Kind::Corrupt),
            ("RW 1 ZERO\nCID=2", Kind::Corrupt),
            ("RW 1 ZERO\nencryption.keySafe = \"vmware:key\"", Kind::Encrypted),
        ];
        for (text, kind) in cases {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.kind, kind, "{text}: {refusal:?}");
        }
    }
}
