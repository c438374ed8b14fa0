//! Big-endian numbers and text at offsets of a header.

use super::header::corrupt;
use crate::error::Refusal;

/// The bytes of the first cluster.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Result<&[u8], Refusal> {
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

    pub(crate) fn u8(&self, offset: u64) -> Result<u8, Refusal> {
        self.array::<1>(offset).map(|[byte]| byte)
    }

    pub(crate) fn u32(&self, offset: u64) -> Result<u32, Refusal> {
        self.array(offset).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&self, offset: u64) -> Result<u64, Refusal> {
        self.array(offset).map(u64::from_be_bytes)
    }

    pub(crate) fn text(&self, offset: u64, len: u64) -> Result<String, Refusal> {
        let bytes = self.bytes(offset, len)?.to_vec();
        String::from_utf8(bytes).map_err(|_| corrupt("the name or format of its backing file is not UTF-8"))
    }
}
