//! Numbers of the qcow2 format: QEMU's `docs/interop/qcow2.txt`, section names in brackets.

/// `QFI` and 0xfb [Header].
pub(crate) const MAGIC: u32 = 0x5146_49fb;
/// The cluster belongs to this table alone and may be written in place [Cluster mapping].
pub(crate) const COPIED: u64 = 1 << 63;
/// Bytes of a version 3 header without optional fields [Header].
pub(crate) const V3_HEADER_LEN: u32 = 104;
