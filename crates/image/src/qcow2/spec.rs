//! Numbers of the qcow2 format: QEMU's `docs/interop/qcow2.txt`, section names in brackets.

/// `QFI` and 0xfb [Header].
pub(crate) const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a version 2 header [Header].
pub(crate) const V2_HEADER_LEN: u32 = 72;
/// Bytes of a version 3 header without optional fields [Header].
pub(crate) const V3_HEADER_LEN: u32 = 104;
/// Smallest and largest cluster, as powers of two: 512 bytes, and the 2 MiB at which QEMU stops.
pub(crate) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Smallest cluster of an image with subclusters [Header].
pub(crate) const MIN_EXTENDED_CLUSTER_BITS: u32 = 14;
/// Width of a refcount as a power of two, in bits: the one of version 2, and the largest [Header].
pub(crate) const V2_REFCOUNT_ORDER: u32 = 4;
/// The largest width: 64 bits.
pub(crate) const MAX_REFCOUNT_ORDER: u32 = 6;
/// The L1 table at which QEMU stops: 32 MiB.
pub(crate) const MAX_L1_ENTRIES: u64 = (32 << 20) / 8;
/// The refcount table at which QEMU stops: 8 MiB.
pub(crate) const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Longest name of a backing file [Header].
pub(crate) const MAX_BACKING_NAME: u64 = 1023;

/// Incompatible features [Header]: the refcounts may be stale, which does not matter to who only reads.
pub(crate) const DIRTY: u64 = 1 << 0;
/// Some structure was found corrupt by who wrote the image.
pub(crate) const CORRUPT: u64 = 1 << 1;
/// The data lies in another file.
pub(crate) const EXTERNAL_DATA: u64 = 1 << 2;
/// The header says how clusters are compressed; without it: deflate.
pub(crate) const COMPRESSION_TYPE: u64 = 1 << 3;
/// L2 entries have bitmaps of subclusters [Extended L2 Entries].
pub(crate) const EXTENDED_L2: u64 = 1 << 4;

/// Autoclear feature [Header]: the bitmaps are consistent.
pub(crate) const BITMAPS: u64 = 1 << 0;

/// The end of the header extensions [Header extensions].
pub(crate) const EXT_END: u32 = 0;
/// Header extension that holds the format of the backing file [Header extensions].
pub(crate) const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Header extension with the names of features [Feature name table].
pub(crate) const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
/// Header extension that says where the bitmaps are [Bitmaps extension].
pub(crate) const EXT_BITMAPS: u32 = 0x2385_2875;
/// Bytes of that extension.
pub(crate) const EXT_BITMAPS_LEN: u64 = 24;
/// Bytes of an entry of the table of feature names: type, bit, name.
pub(crate) const FEATURE_NAME_LEN: usize = 48;
/// The type of incompatible features in it.
pub(crate) const FEATURE_INCOMPATIBLE: u8 = 0;

/// The cluster belongs to this table alone and may be written in place [Cluster mapping].
pub(crate) const COPIED: u64 = 1 << 63;
/// The cluster is compressed [L2 table entry].
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros, whatever its offset says [Standard Cluster Descriptor]. Not in version 2.
pub(crate) const ZERO: u64 = 1;
/// The offset in an L1 entry, and in the entry of a cluster that is not compressed.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Subclusters of a cluster [Extended L2 Entries].
pub(crate) const SUBCLUSTERS: u64 = 32;

/// Bits of an L1 entry that must not be set [L1 table entry].
pub(crate) const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of the entry of a cluster that is not compressed that must not be set [L2 table entry].
pub(crate) const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// The offset in an entry of the refcount table [Refcount table entry].
pub(crate) const REFCOUNT_OFFSET: u64 = 0xffff_ffff_ffff_fe00;
/// The most snapshots: where QEMU stops.
pub(crate) const MAX_SNAPSHOTS: u32 = 65536;
/// Bytes at the start of a snapshot table entry [Snapshots].
pub(crate) const SNAPSHOT_LEN: u64 = 40;
/// The most bitmaps: where QEMU stops [Bitmaps extension].
pub(crate) const MAX_BITMAPS: u32 = 65535;
/// Bytes at the start of a bitmap directory entry [Bitmap directory].
pub(crate) const BITMAP_LEN: u64 = 24;
