//! Running commands, and failing with what they said.

use std::fmt::{Debug, Display};
use std::process::{Command, Stdio};

/// Ends the test when a step fails, with the step's name.
pub trait Must<T> {
    /// The value, or a panic that says what was tried.
    #[track_caller]
    fn must(self, tried: impl Display) -> T;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    fn must(self, tried: impl Display) -> T {
        self.unwrap_or_else(|error| panic!("cannot {tried}: {error:?}"))
    }
}

impl<T> Must<T> for Option<T> {
    fn must(self, tried: impl Display) -> T {
        self.unwrap_or_else(|| panic!("cannot {tried}: nothing there"))
    }
}

/// The standard output of a command, or its standard error where it failed.
pub fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?} did not start: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}: {}", output.status, stderr.trim()))
    }
}

/// The standard output of a command that must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    try_run(command).unwrap_or_else(|error| panic!("{error}"))
}
