//! The header of a sparse extent, which is also its footer [SparseExtentHeader].

use crate::vmdk::spec;

/// What a header says, in the format's own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Sectors of the disk.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// First sector of the descriptor.
    pub descriptor: u64,
    /// Sectors of the descriptor.
    pub descriptor_len: u64,
    /// Sector of the grain directory, or [`spec::DIRECTORY_AT_END`].
    pub directory: u64,
    /// Sectors before the first grain.
    pub overhead: u64,
}

/// Why a header is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no header, or contradicts itself.
    Corrupt(String),
    /// It is the header of another kind of file.
    Unsupported(String),
}

/// Grains of 8 KiB to 1 MiB.
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 16..=2048;
/// The longest descriptor: those that are embedded have 20 sectors.
const DESCRIPTOR_SECTORS: u64 = 256;

impl Header {
    /// The sector that holds the header [version 3].
    pub(super) fn encode(&self) -> [u8; 512] {
        let mut bytes = [0; 512];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &spec::MAGIC.to_le_bytes());
        put(4, &3u32.to_le_bytes());
        put(
            8,
            &(spec::FLAG_NEWLINES | spec::FLAG_COMPRESSED | spec::FLAG_MARKERS).to_le_bytes(),
        );
        put(12, &self.capacity.to_le_bytes());
        put(20, &self.grain.to_le_bytes());
        put(28, &self.descriptor.to_le_bytes());
        put(36, &self.descriptor_len.to_le_bytes());
        put(44, &spec::TABLE_ENTRIES.to_le_bytes());
        put(56, &self.directory.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(73, &spec::NEWLINES);
        put(77, &spec::COMPRESSION_DEFLATE.to_le_bytes());
        bytes
    }

    /// Reads the header of a streamOptimized file.
    pub(super) fn parse(bytes: &[u8; 512]) -> Result<Self, Refusal> {
        if u32_at(bytes, 0) != spec::MAGIC {
            return Err(Refusal::Corrupt("it does not begin with KDMV".into()));
        }
        let (version, flags) = (u32_at(bytes, 4), u32_at(bytes, 8));
        if !(1..=3).contains(&version) {
            return Err(Refusal::Unsupported(format!("its version is {version}")));
        }
        if flags & spec::FLAG_NEWLINES != 0 && bytes[73..77] != spec::NEWLINES {
            return Err(Refusal::Corrupt("its line ends were changed on the way".into()));
        }
        if flags & spec::FLAG_COMPRESSED == 0 || flags & spec::FLAG_MARKERS == 0 {
            return Err(Refusal::Unsupported("it is sparse, and not streamOptimized".into()));
        }
        let algorithm = u16::from_le_bytes([bytes[77], bytes[78]]);
        if algorithm != spec::COMPRESSION_DEFLATE {
            return Err(Refusal::Unsupported(format!("its compression is number {algorithm}")));
        }
        let header = Self {
            capacity: u64_at(bytes, 12),
            grain: u64_at(bytes, 20),
            descriptor: u64_at(bytes, 28),
            descriptor_len: u64_at(bytes, 36),
            directory: u64_at(bytes, 56),
            overhead: u64_at(bytes, 64),
        };
        header.check(u32_at(bytes, 44))?;
        Ok(header)
    }

    fn check(&self, table_entries: u32) -> Result<(), Refusal> {
        if table_entries != spec::TABLE_ENTRIES {
            return Err(Refusal::Unsupported(format!(
                "its grain tables have {table_entries} entries"
            )));
        }
        if !self.grain.is_power_of_two() || !GRAIN_SECTORS.contains(&self.grain) {
            return Err(Refusal::Unsupported(format!("its grains have {} sectors", self.grain)));
        }
        if self.descriptor == 0 || self.descriptor_len == 0 {
            return Err(Refusal::Unsupported(
                "it has no descriptor, and so is a part of another disk".into(),
            ));
        }
        let end = self.descriptor.checked_add(self.descriptor_len);
        let inside = end.is_some_and(|end| end <= self.overhead) && u32::try_from(self.overhead).is_ok();
        if !inside || self.descriptor_len > DESCRIPTOR_SECTORS {
            return Err(Refusal::Corrupt(format!(
                "it claims {} sectors of descriptor from {} of {} before the first grain",
                self.descriptor_len, self.descriptor, self.overhead
            )));
        }
        if self.capacity == 0 || self.capacity > u64::MAX / spec::SECTOR {
            return Err(Refusal::Corrupt(format!("it claims {} sectors", self.capacity)));
        }
        Ok(())
    }
}

pub(super) fn u32_at(bytes: &[u8; 512], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(super) fn u64_at(bytes: &[u8; 512], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        capacity: 1000,
        grain: 128,
        descriptor: 1,
        descriptor_len: 20,
        directory: spec::DIRECTORY_AT_END,
        overhead: 128,
    };

    #[test]
    fn reads_what_it_wrote() {
        assert_eq!(Header::parse(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn refuses_a_text_transfer_and_other_kinds() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = HEADER.encode();
            bytes[at] = byte;
            Header::parse(&bytes)
        };
        assert!(matches!(changed(0, b'X'), Err(Refusal::Corrupt(_))));
        assert!(matches!(changed(75, b'\n'), Err(Refusal::Corrupt(_))));
        assert!(matches!(changed(4, 4), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(10, 0), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(77, 2), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(44, 1), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(20, 127), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(36, 255), Err(Refusal::Corrupt(_))));
        assert!(matches!(changed(28, 0), Err(Refusal::Unsupported(_))));
        assert!(matches!(changed(19, 255), Err(Refusal::Corrupt(_))));
    }
}
