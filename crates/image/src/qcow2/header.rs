//! The header of a qcow2 file, checked before anything is done with it.
//!
//! Every number in it may be hostile. What is in a [`Header`] is sound: no arithmetic on it overflows, and the tables
//! lie within the file.

use std::ops::Range;

use super::spec;
use crate::Kind;

/// What the header says about how to read the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// Virtual size in bytes.
    pub(crate) size: u64,
    /// Where the L1 table is: the part of it that the size needs.
    pub(crate) l1: Range<u64>,
    pub(crate) refcount_table: Range<u64>,
    pub(crate) extended_l2: bool,
    pub(crate) compression: Compression,
    pub(crate) backing: Option<Backing>,
}

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Deflate,
    Zstd,
}

/// The backing file as the header names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) path: String,
    pub(crate) format: Option<String>,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
    pub(crate) remedy: &'static str,
}

const CHECK: &str = "check it with qemu-img check";
const CONVERT: &str = "rewrite it first: qemu-img convert -O qcow2";

fn corrupt(detail: impl Into<String>) -> Refusal {
    refuse(Kind::Corrupt, detail, CHECK)
}

fn refuse(kind: Kind, detail: impl Into<String>, remedy: &'static str) -> Refusal {
    let detail = detail.into();
    Refusal { kind, detail, remedy }
}

/// The bytes of a cluster, given the first bytes of the file: as much as must be read to parse the header.
pub(crate) fn cluster_size(start: &[u8]) -> Result<u64, Refusal> {
    let fields = Fields(start);
    if fields.u32(0)? != spec::MAGIC {
        return Err(refuse(
            Kind::Corrupt,
            "it does not start as a qcow2 file does",
            "name the format that it has",
        ));
    }
    let bits = fields.u32(20)?;
    if !spec::CLUSTER_BITS.contains(&bits) {
        return Err(corrupt(format!("clusters of 2^{bits} bytes; they have 2^9 to 2^21")));
    }
    Ok(1 << bits)
}

impl Header {
    /// Parses the header in the first cluster of a file of `file_size` bytes.
    pub(crate) fn parse(cluster: &[u8], file_size: u64) -> Result<Self, Refusal> {
        let fields = Fields(cluster);
        let cluster_size = cluster_size(cluster)?;
        let version = fields.u32(4)?;
        if !(2..=3).contains(&version) {
            return Err(refuse(Kind::Unsupported, format!("qcow2 version {version}"), CONVERT));
        }
        check_encryption(fields.u32(32)?)?;
        let features = Features::parse(&fields, version)?;
        let cluster_bits = cluster_size.trailing_zeros();
        let size = fields.u64(24)?;
        let header = Self {
            version,
            cluster_bits,
            size,
            l1: l1_table(
                &fields,
                size,
                l2_span(cluster_bits, features.extended_l2),
                cluster_size,
                file_size,
            )?,
            refcount_table: refcount_table(&fields, cluster_size)?,
            extended_l2: features.extended_l2,
            compression: features.compression,
            backing: backing(&fields, features.header_len, cluster_size)?,
        };
        Ok(header)
    }
}

/// Bytes of the disk that one L2 table maps.
fn l2_span(cluster_bits: u32, extended: bool) -> u64 {
    let entry_bits = if extended { 4 } else { 3 };
    1 << (2 * cluster_bits - entry_bits)
}

fn check_encryption(method: u32) -> Result<(), Refusal> {
    let name = match method {
        0 => return Ok(()),
        1 => "AES",
        2 => "LUKS",
        _ => "an unknown method",
    };
    Err(refuse(
        Kind::Encrypted,
        format!("it is encrypted with {name}, and vmferry has no key for it"),
        "decrypt it first: qemu-img convert -O qcow2 with --object secret and --image-opts",
    ))
}

struct Features {
    header_len: u64,
    extended_l2: bool,
    compression: Compression,
}

impl Features {
    fn parse(fields: &Fields<'_>, version: u32) -> Result<Self, Refusal> {
        if version == 2 {
            return Ok(Self {
                header_len: spec::V2_HEADER_LEN.into(),
                extended_l2: false,
                compression: Compression::Deflate,
            });
        }
        let header_len = fields.u32(100)?;
        if header_len < spec::V3_HEADER_LEN || !header_len.is_multiple_of(8) {
            return Err(corrupt(format!("a header of {header_len} bytes")));
        }
        let incompatible = fields.u64(72)?;
        check_incompatible(incompatible)?;
        let compression = if incompatible & spec::COMPRESSION_TYPE == 0 {
            0
        } else if header_len > spec::V3_HEADER_LEN {
            fields.u8(104)?
        } else {
            return Err(corrupt("it has a compression type, and no room for it in its header"));
        };
        Ok(Self {
            header_len: header_len.into(),
            extended_l2: incompatible & spec::EXTENDED_L2 != 0,
            compression: match compression {
                0 => Compression::Deflate,
                1 => Compression::Zstd,
                other => return Err(refuse(Kind::Unsupported, format!("compression type {other}"), CONVERT)),
            },
        })
    }
}

fn check_incompatible(features: u64) -> Result<(), Refusal> {
    let known = spec::DIRTY | spec::CORRUPT | spec::EXTERNAL_DATA | spec::COMPRESSION_TYPE | spec::EXTENDED_L2;
    if features & spec::CORRUPT != 0 {
        let remedy = "repair it first: qemu-img check -r all";
        return Err(refuse(Kind::Corrupt, "it is marked corrupt", remedy));
    }
    if features & spec::EXTERNAL_DATA != 0 {
        let detail = "its data lies in an external data file";
        return Err(refuse(Kind::Unsupported, detail, CONVERT));
    }
    if features & !known != 0 {
        let detail = format!("it has the unknown incompatible features {:#x}", features & !known);
        return Err(refuse(Kind::Unsupported, detail, CONVERT));
    }
    Ok(())
}

/// The part of the L1 table that a disk of `size` bytes needs.
fn l1_table(
    fields: &Fields<'_>,
    size: u64,
    span: u64,
    cluster_size: u64,
    file_size: u64,
) -> Result<Range<u64>, Refusal> {
    let (entries, offset) = (u64::from(fields.u32(36)?), fields.u64(40)?);
    let needed = size.div_ceil(span);
    if entries > spec::MAX_L1_ENTRIES || needed > entries {
        let detail = format!("an L1 table of {entries} entries for a disk of {size} bytes");
        return Err(corrupt(detail));
    }
    let end = offset.checked_add(needed * 8).filter(|end| *end <= file_size);
    match end {
        _ if needed == 0 => Ok(0..0),
        Some(end) if offset.is_multiple_of(cluster_size) && offset >= cluster_size => Ok(offset..end),
        _ => Err(corrupt(format!(
            "an L1 table at {offset} of a file of {file_size} bytes"
        ))),
    }
}

fn refcount_table(fields: &Fields<'_>, cluster_size: u64) -> Result<Range<u64>, Refusal> {
    let (offset, clusters) = (fields.u64(48)?, u64::from(fields.u32(56)?));
    let len = clusters * cluster_size;
    match offset.checked_add(len) {
        Some(end) if len <= spec::MAX_REFCOUNT_TABLE && offset.is_multiple_of(cluster_size) => Ok(offset..end),
        _ => Err(corrupt(format!("a refcount table of {clusters} clusters at {offset}"))),
    }
}

fn backing(fields: &Fields<'_>, header_len: u64, cluster_size: u64) -> Result<Option<Backing>, Refusal> {
    let (offset, len) = (fields.u64(8)?, u64::from(fields.u32(16)?));
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(len).filter(|end| *end <= cluster_size);
    let (Some(_), true) = (end, len <= spec::MAX_BACKING_NAME) else {
        return Err(corrupt(format!(
            "the name of its backing file has {len} bytes at {offset}"
        )));
    };
    Ok(Some(Backing {
        path: fields.text(offset, len)?,
        format: backing_format(fields, header_len, offset)?,
    }))
}

/// Walks the header extensions, which end where the backing file's name starts.
fn backing_format(fields: &Fields<'_>, header_len: u64, end: u64) -> Result<Option<String>, Refusal> {
    let mut at = header_len;
    while at + 8 <= end {
        let (kind, len) = (fields.u32(at)?, u64::from(fields.u32(at + 4)?));
        match kind {
            0 => break,
            spec::EXT_BACKING_FORMAT => return fields.text(at + 8, len).map(Some),
            _ => at += 8 + len.next_multiple_of(8),
        }
    }
    Ok(None)
}

/// Big-endian numbers at offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes(&self, offset: u64, len: u64) -> Result<&[u8], Refusal> {
        let start = usize::try_from(offset).ok();
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let range = start.zip(end).map(|(start, end)| start..end);
        range
            .and_then(|range| self.0.get(range))
            .ok_or_else(|| corrupt("its header is cut off"))
    }

    fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], Refusal> {
        let bytes = self.bytes(offset, N as u64)?;
        bytes.try_into().map_err(|_| corrupt("its header is cut off"))
    }

    fn u8(&self, offset: u64) -> Result<u8, Refusal> {
        self.array::<1>(offset).map(|[byte]| byte)
    }

    fn u32(&self, offset: u64) -> Result<u32, Refusal> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn u64(&self, offset: u64) -> Result<u64, Refusal> {
        self.array(offset).map(u64::from_be_bytes)
    }

    fn text(&self, offset: u64, len: u64) -> Result<String, Refusal> {
        let bytes = self.bytes(offset, len)?.to_vec();
        String::from_utf8(bytes).map_err(|_| corrupt("the name or format of its backing file is not UTF-8"))
    }
}
