//! Signals.

use std::process::{Command, Stdio};

use super::{names, wait_until};
use crate::support::Bench;

#[test]
fn an_interrupted_copy_leaves_nothing() {
    let bench = Bench::new();
    // Long enough: hashing its holes takes minutes.
    let disk = std::fs::File::create(bench.path("disk.raw")).unwrap();
    disk.set_len(1 << 40).unwrap();
    for signal in ["-INT", "-TERM"] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("vmferry"))
            .args(["image", "convert", "disk.raw", "copy.raw"])
            .current_dir(bench.path("."))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("the copy is under way", || names(&bench.path(".")).len() == 2);
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut ended = None;
        wait_until("it ends", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(130));
        assert_eq!(names(&bench.path(".")), ["disk.raw"]);
    }
}
