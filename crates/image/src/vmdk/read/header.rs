//! The header of a file with grain tables, checked before anything is done with it [Hosted Sparse Extents].
//!
//! Every number in it may be hostile. What is in a [`Header`] is sound: no arithmetic on it overflows, and the grain
//! directory lies within the file.

use std::ops::Range;

use super::{CONVERT, corrupt};
use crate::error::Refusal;
use crate::vmdk::spec::{self, SECTOR, field};
use crate::{Kind, Source};

/// What a header says. Lengths and offsets are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) descriptor: Option<Range<u64>>,
    /// Entries of a grain table.
    pub(crate) table_entries: u64,
    pub(crate) directory: Range<u64>,
    /// Where a redundant grain directory is said to be.
    pub(crate) redundant: Option<Range<u64>>,
    /// Whether an entry of 1 is a grain of zeros.
    pub(crate) zeroed: bool,
    pub(crate) grains: Grains,
    /// Whether the file was not closed.
    pub(crate) unclean: bool,
}

/// How grains are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grains {
    Plain,
    /// Each is a zlib stream, behind a marker or not.
    Compressed {
        marked: bool,
    },
}

impl Header {
    /// Reads the header and, where the grain directory is at the end, the footer.
    pub(crate) async fn read(source: &Source) -> Result<Self, crate::Error> {
        let refuse = |refusal: Refusal| refusal.of("vmdk", &source.name);
        let file_size = source.file.size();
        let start = source.read(0, file_size.min(spec::HEADER_LEN)).await?;
        if fields(&start).map_err(refuse)?.u64(field::DIRECTORY) != spec::DIRECTORY_AT_END {
            return Self::parse(&start, file_size).map_err(refuse);
        }
        let cut_off = || refuse(corrupt("it has no footer at its end: it may be cut off"));
        let whole = file_size / SECTOR * SECTOR;
        let end = whole.checked_sub(spec::FOOTER_FROM_END).filter(|at| *at >= SECTOR);
        let end = source.read(end.ok_or_else(cut_off)?, spec::FOOTER_FROM_END).await?;
        // Some leave out the end-of-stream marker.
        let footer = end
            .chunks_exact(spec::HEADER_LEN as usize)
            .find(|sector| magic(sector) == Some(spec::MAGIC));
        let footer = footer.ok_or_else(cut_off)?;
        let header = fields(&start).map_err(refuse)?;
        let end = fields(footer).map_err(refuse)?;
        if [field::CAPACITY, field::GRAIN_SIZE]
            .iter()
            .any(|at| header.u64(*at) != end.u64(*at))
        {
            return Err(refuse(corrupt("its footer contradicts its header")));
        }
        let mut found = Self::parse(footer, file_size).map_err(refuse)?;
        found.descriptor = descriptor(header, file_size).map_err(refuse)?;
        Ok(found)
    }

    /// Parses a header or a footer of a file of `file_size` bytes.
    pub(crate) fn parse(bytes: &[u8], file_size: u64) -> Result<Self, Refusal> {
        let fields = fields(bytes)?;
        let version = fields.u32(field::VERSION);
        if !spec::VERSIONS.contains(&version) {
            return Err(Refusal::new(
                Kind::Unsupported,
                format!("VMDK version {version}"),
                CONVERT,
            ));
        }
        let flags = fields.u32(field::FLAGS);
        if flags & spec::FLAG_NEWLINES != 0 && fields.array::<4>(field::NEWLINES) != spec::NEWLINES {
            return Err(corrupt("its line ends were changed: it was transferred as text"));
        }
        let (capacity, grain) = (fields.u64(field::CAPACITY), fields.u64(field::GRAIN_SIZE));
        if !(1..=spec::MAX_CAPACITY).contains(&capacity) {
            return Err(corrupt(format!("an extent of {capacity} sectors")));
        }
        if !grain.is_power_of_two() || grain > spec::MAX_GRAIN {
            return Err(corrupt(format!("grains of {grain} sectors")));
        }
        let table_entries = fields.u32(field::TABLE_ENTRIES);
        if !(1..=spec::TABLE_ENTRIES).contains(&table_entries) {
            return Err(corrupt(format!("grain tables of {table_entries} entries")));
        }
        let directory_len = capacity.div_ceil(grain * u64::from(table_entries));
        if directory_len > spec::MAX_DIRECTORY {
            return Err(corrupt(format!("a grain directory of {directory_len} entries")));
        }
        let directory_at = |at| directory(fields.u64(at), directory_len * spec::ENTRY_LEN, file_size);
        let redundant = fields.u64(field::REDUNDANT_DIRECTORY);
        let has_redundant = flags & spec::FLAG_REDUNDANT != 0 && redundant != 0 && redundant != spec::DIRECTORY_AT_END;
        Ok(Self {
            version,
            capacity: capacity * SECTOR,
            grain: grain * SECTOR,
            descriptor: descriptor(fields, file_size)?,
            table_entries: table_entries.into(),
            directory: directory_at(field::DIRECTORY)?,
            redundant: has_redundant
                .then(|| directory_at(field::REDUNDANT_DIRECTORY))
                .transpose()?,
            zeroed: flags & spec::FLAG_ZEROED_GRAINS != 0,
            grains: grains(fields, flags)?,
            unclean: fields.array::<1>(field::UNCLEAN) != [0],
        })
    }

    /// Bytes of a grain table.
    pub(crate) fn table_len(&self) -> u64 {
        self.table_entries * spec::ENTRY_LEN
    }

    /// Bytes of the disk that a grain table maps.
    pub(crate) fn table_span(&self) -> u64 {
        self.table_entries * self.grain
    }
}

/// The number at the start of a file.
pub(crate) fn magic(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|magic| u32::from_le_bytes(*magic))
}

/// Where the embedded descriptor of a disk without extents of its own is [`capacity` 0].
pub(crate) fn descriptor_only(bytes: &[u8], file_size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let fields = fields(bytes)?;
    if fields.u64(field::CAPACITY) != 0 {
        return Ok(None);
    }
    descriptor(fields, file_size)
}

fn grains(fields: Fields<'_>, flags: u32) -> Result<Grains, Refusal> {
    match u16::from_le_bytes(fields.array(field::COMPRESSION)) {
        spec::COMPRESSION_NONE if flags & spec::FLAG_COMPRESSED != 0 => {
            Err(corrupt("its grains are compressed, and it does not say how"))
        }
        spec::COMPRESSION_NONE => Ok(Grains::Plain),
        spec::COMPRESSION_DEFLATE => Ok(Grains::Compressed {
            marked: flags & spec::FLAG_MARKERS != 0,
        }),
        other => Err(Refusal::new(Kind::Unsupported, format!("compression {other}"), CONVERT)),
    }
}

fn directory(sector: u64, len: u64, file_size: u64) -> Result<Range<u64>, Refusal> {
    let start = sector.checked_mul(SECTOR).filter(|start| *start >= spec::HEADER_LEN);
    let end = start
        .and_then(|start| start.checked_add(len))
        .filter(|end| *end <= file_size);
    let bad = || {
        corrupt(format!(
            "a grain directory of {len} bytes at sector {sector} of a file of {file_size} bytes"
        ))
    };
    start.zip(end).map(|(start, end)| start..end).ok_or_else(bad)
}

fn descriptor(fields: Fields<'_>, file_size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let (sector, sectors) = (fields.u64(field::DESCRIPTOR_OFFSET), fields.u64(field::DESCRIPTOR_SIZE));
    if sector == 0 || sectors == 0 {
        return Ok(None);
    }
    let start = sector.checked_mul(SECTOR);
    let len = sectors.checked_mul(SECTOR).filter(|len| *len <= spec::MAX_DESCRIPTOR);
    let end = start.zip(len).and_then(|(start, len)| start.checked_add(len));
    match start.zip(end.filter(|end| *end <= file_size)) {
        Some((start, end)) => Ok(Some(start..end)),
        None => Err(corrupt(format!("a descriptor of {sectors} sectors at sector {sector}"))),
    }
}

fn fields(bytes: &[u8]) -> Result<Fields<'_>, Refusal> {
    match bytes.first_chunk() {
        Some(header) => Ok(Fields(header)),
        None => Err(corrupt("its header is cut off")),
    }
}

/// Little-endian numbers at offsets, all of them constants of [`spec::field`].
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8; spec::HEADER_LEN as usize]);

impl Fields<'_> {
    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        let bytes = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }

    fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }
}
