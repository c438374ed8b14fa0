//! `vmferry image`, held against QEMU's tools.

mod convert;
mod foreign;
mod look;
mod nbd;
mod refusals;
mod stopping;
mod stores;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vmferry_testkit::wait_for;

use crate::support::Bench;

const MIB: u64 = 1 << 20;

/// Runs `qemu-img`, which must succeed.
#[track_caller]
fn qemu_img(bench: &Bench, args: &[&str]) -> String {
    let mut command = Command::new("qemu-img");
    let output = command.args(args).current_dir(bench.path(".")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Whether two images hold the same.
#[track_caller]
fn same(bench: &Bench, (one, format): (&str, &str), (other, other_format): (&str, &str)) {
    qemu_img(bench, &["compare", "-f", format, "-F", other_format, one, other]);
}

/// Waits until it is so.
#[track_caller]
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, Duration::from_mins(1), || so().then_some(()));
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes that do not compress to nothing and are not zeros.
fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let bytes = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    bytes.take(len as usize).collect()
}

/// A raw disk of `size` bytes with noise, a run of text, zeros that are written, and holes.
fn raw_disk(bench: &Bench, name: &str, size: u64) {
    let file = File::create(bench.path(name)).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&noise(size, 3 * MIB), 0).unwrap();
    file.write_all_at(&vec![0; MIB as usize], MIB).unwrap();
    file.write_all_at(&b"some text, again ".repeat(40_000), 5 * MIB + 512)
        .unwrap();
    file.write_all_at(&noise(7, 70_000), size - 70_000).unwrap();
}

/// A `qemu-nbd` that serves one image as the export `disk`.
struct Served {
    child: Child,
    place: String,
}

impl Served {
    fn start(bench: &Bench, socket: &str, args: &[&str]) -> Self {
        let path = bench.path(socket);
        let child = Command::new("qemu-nbd")
            .args(["--persistent", "--shared=0", "--export-name=disk", "--socket"])
            .arg(&path)
            .args(args)
            .current_dir(bench.path("."))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let place = format!("nbd+unix:///disk?socket={}", path.display());
        let served = Self { child, place };
        wait_until("qemu-nbd listens", || {
            std::os::unix::net::UnixStream::connect(&path).is_ok()
        });
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
