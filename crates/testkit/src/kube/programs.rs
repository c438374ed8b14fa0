//! Where Kubernetes' programs are.

use std::path::PathBuf;

use crate::stores::find_program;

/// The program that a variable names, or one of that name on `PATH` or in the cache; ends the test where there is none.
#[track_caller]
pub(super) fn program(name: &str, variable: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named
        .or_else(|| find_program(name))
        .unwrap_or_else(|| panic!("{name} is not installed: run scripts/deps.sh kube, or name one by {variable}"))
}
