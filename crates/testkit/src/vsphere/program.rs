//! Where the simulator's program is.

use std::path::PathBuf;
use std::process::Command;

use crate::command::run;
use crate::stores::find_program;

/// Its sources' place.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vcsim");

/// The program that `VCSIM` names, or the one that `scripts/deps.sh vsphere` built from these sources, whose name says so.
#[track_caller]
pub(super) fn find() -> PathBuf {
    if let Some(named) = std::env::var_os("VCSIM") {
        return PathBuf::from(named);
    }
    let sum = run(Command::new("sh")
        .args(["-c", "cat *.go | sha256sum"])
        .current_dir(SOURCES));
    let name = format!("vmferry-vcsim-{}", &sum[..16]);
    find_program(&name)
        .unwrap_or_else(|| panic!("{name} is not built: run scripts/deps.sh vsphere, or name one by VCSIM"))
}
