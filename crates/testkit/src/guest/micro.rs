//! The micro guest: one boot sector, half a second under emulation from power-on to its greeting. See `micro.S`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::command::Must;
use crate::guest::Format;
use crate::image::{SECTOR, read_sectors};

/// `micro.S`, assembled.
pub const BOOT_SECTOR: &[u8; 512] = include_bytes!("micro.bin");

/// Where the greeting stands.
const GREETING: u64 = 2048;
/// Where counter `a` and the boots stand on the first disk, and counter `c` on the second.
const FIRST: u64 = 4096;
/// Where counter `b` stands.
const SECOND: u64 = 4104;

/// The smallest disk that the micro guest fits in.
pub const MIN_SIZE: u64 = (SECOND + 1) * SECTOR;

/// What the micro guest's disk says about its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// How often it booted.
    pub boots: u32,
    /// The counter that is written first.
    pub a: u32,
    /// The counter that is written second.
    pub b: u32,
}

impl Counters {
    /// Reads them out of an image.
    pub fn read(path: &Path, format: Format) -> Self {
        let (first, second) = (
            read_sectors(path, format, FIRST, 1),
            read_sectors(path, format, SECOND, 1),
        );
        Self {
            boots: number(&first, 4),
            a: number(&first, 0),
            b: number(&second, 0),
        }
    }

    /// Counter `c` out of the image of the second disk.
    pub fn read_second_disk(path: &Path, format: Format) -> u32 {
        number(&read_sectors(path, format, FIRST, 1), 0)
    }

    /// Asserts that the image is one point in time of a running guest: `b <= a <= b + 1`.
    #[track_caller]
    pub fn assert_consistent(self) {
        assert!(
            self.b <= self.a && self.a <= self.b + 1,
            "not a point in time: {self:?}"
        );
    }

    /// Asserts that the image of the second disk is of the same point in time: `c <= b <= a <= c + 1`.
    #[track_caller]
    pub fn assert_consistent_with(self, c: u32) {
        self.assert_consistent();
        assert!(
            c <= self.b && self.a <= c + 1,
            "the disks are of different points in time: {self:?}, c = {c}"
        );
    }
}

fn number(sector: &[u8], offset: usize) -> u32 {
    let bytes = sector[offset..offset + 4].try_into().must("take four bytes");
    u32::from_le_bytes(bytes)
}

/// Makes a raw image bootable: it will greet with `marker`.
pub fn install(raw: &File, marker: &str) {
    raw.write_all_at(BOOT_SECTOR, 0).must("write the boot sector");
    let greeting = format!("GUEST-BOOT marker={marker} boots=0x\0");
    assert!(greeting.len() <= 512, "the marker is too long: {marker}");
    raw.write_all_at(greeting.as_bytes(), GREETING * SECTOR)
        .must("write the greeting");
    // Not zeros, so that an image has its clusters here from the start: a new one shows outside only after a flush of qemu's.
    for sector in [FIRST, SECOND] {
        raw.write_all_at(b"counter", sector * SECTOR + 8)
            .must("write the counters");
    }
}

/// What the guest prints at boot number `boots`.
pub fn greeting(marker: &str, boots: u32) -> String {
    format!("GUEST-BOOT marker={marker} boots=0x{boots:08X}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::run;
    use std::process::Command;

    #[test]
    fn the_boot_sector_is_the_assembled_source() {
        let dir = tempfile::tempdir().unwrap();
        let (object, binary) = (dir.path().join("micro.o"), dir.path().join("micro.bin"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guest/micro.S");
        run(Command::new("as").args(["--32", source, "-o"]).arg(&object));
        run(Command::new("ld")
            .args(["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o"])
            .args([&binary, &object]));
        assert_eq!(std::fs::read(binary).unwrap(), BOOT_SECTOR);
    }

    #[test]
    #[should_panic(expected = "not a point in time")]
    fn counters_that_ran_ahead_are_found_out() {
        Counters { boots: 1, a: 7, b: 5 }.assert_consistent();
    }

    #[test]
    #[should_panic(expected = "different points in time")]
    fn disks_of_two_instants_are_found_out() {
        Counters { boots: 1, a: 7, b: 7 }.assert_consistent_with(5);
    }
}
