//! Numbers of the VMDK format: VMware's "Virtual Disk Format 5.0", section names in brackets. All of them are little-endian.

use std::ops::RangeInclusive;

/// Offsets in a file are counted in sectors of this many bytes [Basic Terminology].
pub(crate) const SECTOR: u64 = 512;

/// `KDMV`: the start of a hosted sparse extent [Hosted Sparse Extents].
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"KDMV");
/// `COWD`: the start of an ESX Server sparse extent, which is not read.
pub(crate) const COWD_MAGIC: u32 = u32::from_le_bytes(*b"COWD");
/// The start of an seSparse extent, which is not read.
pub(crate) const SE_SPARSE_MAGIC: u32 = 0xcafe_babe;
/// Bytes of the header, and of the footer [Hosted Sparse Extents].
pub(crate) const HEADER_LEN: u64 = 512;
/// Versions of the header: 2 brought zeroed grains, 3 changed block tracking and streams.
pub(crate) const VERSIONS: RangeInclusive<u32> = 1..=3;
/// Versions of the text descriptor; ESXi writes up to 4. What changes how bytes are read is not in this number.
pub(crate) const DESCRIPTOR_VERSIONS: RangeInclusive<u32> = 1..=4;

/// Where the fields of the header are, in bytes [Hosted Sparse Extents: SparseExtentHeader].
pub(crate) mod field {
    /// 4 bytes: which version.
    pub(crate) const VERSION: usize = 4;
    /// 4 bytes: flags.
    pub(crate) const FLAGS: usize = 8;
    /// 8 bytes: sectors of the disk that the extent maps.
    pub(crate) const CAPACITY: usize = 12;
    /// 8 bytes: sectors of a grain.
    pub(crate) const GRAIN_SIZE: usize = 20;
    /// 8 bytes: sector of the embedded descriptor, or 0.
    pub(crate) const DESCRIPTOR_OFFSET: usize = 28;
    /// 8 bytes: sectors of the embedded descriptor.
    pub(crate) const DESCRIPTOR_SIZE: usize = 36;
    /// 4 bytes: entries of a grain table.
    pub(crate) const TABLE_ENTRIES: usize = 44;
    /// 8 bytes: sector of the redundant grain directory, or 0.
    pub(crate) const REDUNDANT_DIRECTORY: usize = 48;
    /// 8 bytes: sector of the grain directory, or [`DIRECTORY_AT_END`](super::DIRECTORY_AT_END).
    pub(crate) const DIRECTORY: usize = 56;
    /// 1 byte: whether the extent was not closed.
    pub(crate) const UNCLEAN: usize = 72;
    /// 4 bytes: [`NEWLINES`](super::NEWLINES).
    pub(crate) const NEWLINES: usize = 73;
    /// 2 bytes: how grains are compressed.
    pub(crate) const COMPRESSION: usize = 77;
}

/// What a transfer as text would have changed [Hosted Sparse Extents].
pub(crate) const NEWLINES: [u8; 4] = *b"\n \r\n";
/// The grain directory is where the footer says, at the end of the file [Stream-Optimized Compressed Sparse Extents].
pub(crate) const DIRECTORY_AT_END: u64 = u64::MAX;
/// How far from the end of the file the footer starts: it is followed by the end-of-stream marker.
pub(crate) const FOOTER_FROM_END: u64 = 2 * SECTOR;

/// Flag: [`NEWLINES`] are there.
pub(crate) const FLAG_NEWLINES: u32 = 1 << 0;
/// Flag: there is a redundant grain directory.
pub(crate) const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag: [`GRAIN_ZEROED`] has its meaning.
pub(crate) const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
pub(crate) const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before grains and tables.
pub(crate) const FLAG_MARKERS: u32 = 1 << 17;

/// Compression: none.
pub(crate) const COMPRESSION_NONE: u16 = 0;
/// Compression: deflate, in a zlib frame.
pub(crate) const COMPRESSION_DEFLATE: u16 = 1;

/// Bytes of an entry of a grain directory or a grain table: a sector.
pub(crate) const ENTRY_LEN: u64 = 4;
/// Entries of a grain table [Grain Tables]. QEMU reads tables with fewer.
pub(crate) const TABLE_ENTRIES: u32 = 512;
/// A grain that is not there: it is the parent's, or zeros.
pub(crate) const GRAIN_ABSENT: u32 = 0;
/// A grain of zeros, where the flag is set.
pub(crate) const GRAIN_ZEROED: u32 = 1;
/// Sectors of the largest grain that is read: 2 MiB; VMware's and QEMU's have 64 KiB.
pub(crate) const MAX_GRAIN: u64 = (2 << 20) / SECTOR;
/// The most entries of a grain directory: where QEMU stops.
pub(crate) const MAX_DIRECTORY: u64 = 32 << 20;
/// The most sectors of an extent and of a disk: 2^63 bytes.
pub(crate) const MAX_CAPACITY: u64 = 1 << 54;

/// Bytes before the compressed data of a grain, where there are markers: 8 of the sector on the disk, 4 of the length.
pub(crate) const GRAIN_HEADER_LEN: u64 = 12;
/// Markers without data, by their type [Markers].
pub(crate) mod marker {
    /// The end of the stream.
    pub(crate) const END: u32 = 0;
    /// A grain table follows.
    pub(crate) const TABLE: u32 = 1;
    /// The grain directory follows.
    pub(crate) const DIRECTORY: u32 = 2;
    /// The footer follows.
    pub(crate) const FOOTER: u32 = 3;
    /// Nothing follows. vSphere writes it, four sectors at a time, while it reads zeros for so long that somebody might take the
    /// stream for dead. In no document; VMware's own library for these files has it, and VirtualBox skips it.
    pub(crate) const PROGRESS: u32 = 4;
}

/// The longest descriptor that is read: 1 MiB, where QEMU stops.
pub(crate) const MAX_DESCRIPTOR: u64 = 1 << 20;
/// The most extents of a disk: 64 TiB in extents of 2 GiB.
pub(crate) const MAX_EXTENTS: usize = 32 << 10;
/// The content identifier of a parent that there is not [The Header].
pub(crate) const NO_PARENT: u32 = u32::MAX;
