//! The beginning of a staged object, as far as an import must know it beforehand.

/// Bytes of a sparse extent's header.
pub(super) const LEN: usize = 512;

const SECTOR: u64 = 512;
/// Grains are compressed, and markers lie between them.
const STREAM_FLAGS: u32 = 0x3_0000;

/// The capacity in bytes that the header of a streamOptimized VMDK says, or why it is none.
pub(super) fn capacity(header: &[u8]) -> Result<u64, &'static str> {
    let number = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    if header.get(..4) != Some(b"KDMV") {
        return Err("it does not begin as a VMDK does");
    }
    if number(8).unwrap_or(0) & STREAM_FLAGS != STREAM_FLAGS {
        return Err("it is a VMDK, but not a streamOptimized one");
    }
    let sectors = header
        .get(12..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let capacity = sectors.and_then(|sectors| sectors.checked_mul(SECTOR));
    capacity
        .filter(|capacity| *capacity > 0)
        .ok_or("its header says no capacity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_says_its_capacity() {
        let mut header = vec![0; LEN];
        assert!(capacity(&header).is_err());
        header[..4].copy_from_slice(b"KDMV");
        header[12] = 8;
        assert!(capacity(&header).unwrap_err().contains("not a streamOptimized"));
        header[10] = 3;
        assert_eq!(capacity(&header), Ok(4096));
        header[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(capacity(&header).is_err());
        assert!(capacity(&header[..16]).is_err());
    }
}
