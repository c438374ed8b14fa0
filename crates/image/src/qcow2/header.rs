//! The header of a qcow2 file, checked before anything is done with it.
//!
//! Every number in it may be hostile. What is in a [`Header`] is sound: no arithmetic on it overflows, and the tables
//! lie within the file.

use std::ops::Range;

use super::extension::{Bitmaps, Extensions};
use super::fields::Fields;
use super::spec;
use crate::Kind;
use crate::codec::Codec;
use crate::error::Refusal;
use crate::place::SECTOR;
use crate::source::Backing;

/// What the header says about how to read the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// Virtual size in bytes.
    pub(crate) size: u64,
    /// Where the L1 table is: the part of it that the size needs.
    pub(crate) l1: Range<u64>,
    /// The whole of it, which may end past the end of the file: nothing after the part above is read, except by a check.
    pub(crate) l1_all: Range<u64>,
    pub(crate) refcount_table: Range<u64>,
    pub(crate) extended_l2: bool,
    /// Whether the refcounts may be stale.
    pub(crate) dirty: bool,
    /// Width of a refcount as a power of two, in bits.
    pub(crate) refcount_order: u32,
    pub(crate) codec: Codec,
    pub(crate) backing: Option<Backing>,
    /// How many internal snapshots there are, and where the table of them starts.
    pub(crate) snapshots: (u32, u64),
    pub(crate) bitmaps: Option<Bitmaps>,
}

const CHECK: &str = "check it with qemu-img check";
const CONVERT: &str = "rewrite it first: qemu-img convert -O qcow2";

pub(crate) fn corrupt(detail: impl Into<String>) -> Refusal {
    refuse(Kind::Corrupt, detail, CHECK)
}

fn refuse(kind: Kind, detail: impl Into<String>, remedy: &'static str) -> Refusal {
    Refusal::new(kind, detail, remedy)
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
        let header_len = header_len(&fields, version, cluster_size)?;
        let backing_name = backing_name(&fields, cluster_size)?;
        let extensions_end = backing_name.as_ref().map_or(cluster_size, |(start, _)| *start);
        let extensions = Extensions::parse(&fields, header_len, extensions_end.min(cluster.len() as u64))?;
        let cluster_bits = cluster_size.trailing_zeros();
        let features = Features::parse(&fields, version, header_len, &extensions, cluster_bits)?;
        let size = fields.u64(24)?;
        let span = l2_span(cluster_bits, features.extended_l2);
        Ok(Self {
            version,
            cluster_bits,
            size: whole_sectors(size)?,
            l1: l1_table(&fields, size, span, cluster_size, file_size)?,
            l1_all: l1_all(&fields)?,
            refcount_table: refcount_table(&fields, cluster_size)?,
            extended_l2: features.extended_l2,
            dirty: features.dirty,
            refcount_order: features.refcount_order,
            codec: features.codec,
            backing: backing_name.map(|(_, path)| Backing {
                path,
                format: extensions.backing_format,
            }),
            snapshots: (fields.u32(60)?, fields.u64(64)?),
            bitmaps: extensions.bitmaps.filter(|_| features.bitmaps),
        })
    }
}

/// A disk has whole sectors. The cluster that has the last bytes has the sector, too.
fn whole_sectors(size: u64) -> Result<u64, Refusal> {
    size.checked_next_multiple_of(SECTOR)
        .ok_or_else(|| corrupt(format!("a disk of {size} bytes")))
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

fn header_len(fields: &Fields<'_>, version: u32, cluster_size: u64) -> Result<u64, Refusal> {
    if version == 2 {
        return Ok(spec::V2_HEADER_LEN.into());
    }
    let len = fields.u32(100)?;
    if len < spec::V3_HEADER_LEN || !len.is_multiple_of(8) || u64::from(len) > cluster_size {
        return Err(corrupt(format!("a header of {len} bytes")));
    }
    Ok(len.into())
}

struct Features {
    extended_l2: bool,
    dirty: bool,
    bitmaps: bool,
    refcount_order: u32,
    codec: Codec,
}

impl Features {
    fn parse(
        fields: &Fields<'_>,
        version: u32,
        header_len: u64,
        extensions: &Extensions,
        cluster_bits: u32,
    ) -> Result<Self, Refusal> {
        if version == 2 {
            return Ok(Self {
                extended_l2: false,
                dirty: false,
                bitmaps: false,
                refcount_order: spec::V2_REFCOUNT_ORDER,
                codec: Codec::Deflate,
            });
        }
        let incompatible = fields.u64(72)?;
        check_incompatible(incompatible, extensions)?;
        let extended_l2 = incompatible & spec::EXTENDED_L2 != 0;
        if extended_l2 && cluster_bits < spec::MIN_EXTENDED_CLUSTER_BITS {
            return Err(corrupt(format!("subclusters in clusters of 2^{cluster_bits} bytes")));
        }
        let refcount_order = fields.u32(96)?;
        if refcount_order > spec::MAX_REFCOUNT_ORDER {
            return Err(corrupt(format!("refcounts of 2^{refcount_order} bits")));
        }
        Ok(Self {
            extended_l2,
            dirty: incompatible & spec::DIRTY != 0,
            bitmaps: fields.u64(88)? & spec::BITMAPS != 0,
            refcount_order,
            codec: codec(fields, header_len, incompatible & spec::COMPRESSION_TYPE != 0)?,
        })
    }
}

/// [Additional fields]: the field and the feature bit must agree.
fn codec(fields: &Fields<'_>, header_len: u64, other: bool) -> Result<Codec, Refusal> {
    let there = header_len > u64::from(spec::V3_HEADER_LEN);
    let compression = if there { fields.u8(104)? } else { 0 };
    match (other, compression) {
        (false, 0) => Ok(Codec::Deflate),
        (true, 1) => Ok(Codec::Zstd),
        (true, 0) => Err(corrupt(
            "its feature bit says that it has a compression type, and its header has none",
        )),
        (true, other) => Err(refuse(Kind::Unsupported, format!("compression type {other}"), CONVERT)),
        (false, other) => Err(corrupt(format!(
            "its header has the compression type {other}, and the feature bit for it is not set"
        ))),
    }
}

fn check_incompatible(features: u64, extensions: &Extensions) -> Result<(), Refusal> {
    let known = spec::DIRTY | spec::CORRUPT | spec::EXTERNAL_DATA | spec::COMPRESSION_TYPE | spec::EXTENDED_L2;
    if features & !known != 0 {
        let names = extensions.describe(features & !known);
        let detail = format!("it has incompatible features that vmferry does not know: {names}");
        return Err(refuse(Kind::Unsupported, detail, CONVERT));
    }
    if features & spec::CORRUPT != 0 {
        let remedy = "repair it first: qemu-img check -r all";
        return Err(refuse(Kind::Corrupt, "it is marked corrupt", remedy));
    }
    if features & spec::EXTERNAL_DATA != 0 {
        let detail = "its data lies in an external data file";
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

fn l1_all(fields: &Fields<'_>) -> Result<Range<u64>, Refusal> {
    let (entries, offset) = (u64::from(fields.u32(36)?), fields.u64(40)?);
    Ok(offset..offset.saturating_add(entries * 8))
}

fn refcount_table(fields: &Fields<'_>, cluster_size: u64) -> Result<Range<u64>, Refusal> {
    let (offset, clusters) = (fields.u64(48)?, u64::from(fields.u32(56)?));
    let len = clusters * cluster_size;
    match offset.checked_add(len) {
        Some(end) if len <= spec::MAX_REFCOUNT_TABLE && offset.is_multiple_of(cluster_size) => Ok(offset..end),
        _ => Err(corrupt(format!("a refcount table of {clusters} clusters at {offset}"))),
    }
}

/// Where the name of the backing file starts, and the name.
fn backing_name(fields: &Fields<'_>, cluster_size: u64) -> Result<Option<(u64, String)>, Refusal> {
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
    Ok(Some((offset, fields.text(offset, len)?)))
}
