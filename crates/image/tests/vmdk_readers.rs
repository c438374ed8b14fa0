//! What our writer makes of random disks, before two readers that are not ours: QEMU's, and dissect.hypervisor.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::random::{Data, disk_of, disks, map_of, write};
use common::{Folder, write_raw};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

const DISKS: usize = 200;

#[test]
fn two_other_readers_read_what_we_wrote() {
    let folder = Folder::new();
    let mut runner = TestRunner::deterministic();
    for number in 0..DISKS {
        let (capacity, data) = disks().new_tree(&mut runner).unwrap().current();
        let disk = disk_of(capacity, &data);
        folder.write(
            &format!("{number}.vmdk"),
            write(capacity, &disk, &map_of(capacity, &data), 8),
        );
        write_raw(&folder.path(&format!("{number}.raw")), capacity, &data);
    }
    // That a difference would be found: a last byte that is another, and a disk that is a sector longer.
    let (len, ones): (u64, Data) = (65536, vec![(0, vec![1; 65536])]);
    let file = write(len, &ones[0].1, &map_of(len, &ones), 1);
    for (number, raw_len, bytes) in [(DISKS, len, 65535), (DISKS + 1, len + 512, 65536)] {
        folder.write(&format!("{number}.vmdk"), &file);
        write_raw(&folder.path(&format!("{number}.raw")), raw_len, &[(0, vec![1; bytes])]);
    }

    let said = dissect(&folder.path(""), DISKS + 2);
    let mut expected = vec!["same"; DISKS];
    expected.extend(["other bytes within 0..65536", "65536 bytes, not 66048"]);
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    for number in 0..DISKS {
        let (vmdk, raw) = (format!("{number}.vmdk"), format!("{number}.raw"));
        folder.qemu_img(&["check", "-q", "-f", "vmdk", &vmdk]);
        folder.qemu_img(&["compare", "-q", "-f", "vmdk", "-F", "raw", &vmdk, &raw]);
    }
}

/// What dissect.hypervisor says of that many disks in a folder, a line each.
fn dissect(folder: &Path, disks: usize) -> String {
    let program = cache().join("vmferry/tools/bin/dissect-python");
    assert!(
        program.exists(),
        "{} is missing: run scripts/deps.sh readers",
        program.display()
    );
    let output = Command::new(program)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vmdk_readers.py"))
        .arg(disks.to_string())
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where `scripts/deps.sh` puts tools.
fn cache() -> PathBuf {
    let named = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty());
    let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
    named.map_or_else(home, PathBuf::from)
}
