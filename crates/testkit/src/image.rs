//! Disk images: made, read and compared with qemu's own tools.

use std::path::Path;
use std::process::Command;

use crate::command::{Must, run};
use crate::guest::Format;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// Converts an image to a new file.
pub fn convert(from: &Path, from_format: Format, to: &Path, to_format: Format) {
    run(Command::new("qemu-img")
        .args(["convert", "-f", from_format.name(), "-O", to_format.name()])
        .args([from, to]));
}

/// Makes a qcow2 that holds the changes to another image. `backing` is stored as it is given.
pub fn overlay(backing: &Path, backing_format: Format, to: &Path) {
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", backing_format.name(), "-b"])
        .args([backing, to]));
}

/// Makes an empty image of `size` bytes.
pub fn create(path: &Path, format: Format, size: u64) {
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", format.name()])
        .arg(path)
        .arg(size.to_string()));
}

/// Fills `len` bytes from `offset` of an image with one value.
pub fn write_pattern(path: &Path, format: Format, offset: u64, len: u64, value: u8) {
    let action = format!("write -q -P {value} {offset} {len}");
    run(Command::new("qemu-io")
        .args(["-f", format.name(), "-c", &action])
        .arg(path));
}

/// Asserts that `len` bytes from `offset` of an image (its backing files included) all have one value.
#[track_caller]
pub fn assert_pattern(path: &Path, format: Format, offset: u64, len: u64, value: u8) {
    let action = format!("read -q -P {value} {offset} {len}");
    let said = run(Command::new("qemu-io")
        .args(["-r", "-U", "-f", format.name(), "-c", &action])
        .arg(path));
    assert!(
        !said.contains("failed"),
        "{} does not hold {value} at {offset}+{len}: {said}",
        path.display()
    );
}

/// Asserts that two images have the same content; the longer one may end in zeros.
#[track_caller]
pub fn assert_same(left: &Path, left_format: Format, right: &Path, right_format: Format) {
    run(Command::new("qemu-img")
        .args(["compare", "-U", "-f", left_format.name(), "-F", right_format.name()])
        .args([left, right]));
}

/// Asserts that a qcow2 is without error and without leaked clusters.
#[track_caller]
pub fn assert_sound(path: &Path) {
    run(Command::new("qemu-img")
        .args(["check", "-q", "-U", "-f", "qcow2"])
        .arg(path));
}

/// What `qemu-img info` says, as JSON text.
pub fn info(path: &Path) -> String {
    run(Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(path))
}

/// Reads `count` sectors from `sector` on, as the guest would see them.
pub fn read_sectors(path: &Path, format: Format, sector: u64, count: u64) -> Vec<u8> {
    let piece = tempfile::NamedTempFile::new().must("make a temporary file");
    run(Command::new("qemu-img")
        .args(["dd", "-U", "-f", format.name(), "-O", "raw", "bs=512"])
        .args([format!("skip={sector}"), format!("count={}", sector + count)])
        .arg(format!("if={}", path.display()))
        .arg(format!("of={}", piece.path().display())));
    let bytes = std::fs::read(piece.path()).must("read the piece");
    let wanted = usize::try_from(count * SECTOR).must("count bytes");
    assert!(
        bytes.len() >= wanted,
        "{} ends before sector {}",
        path.display(),
        sector + count
    );
    bytes[..wanted].to_vec()
}
