//! `vmferry completion`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit::Code;

/// Prints the completions of a shell.
pub fn completion(shell: Shell) -> Code {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vmferry", &mut text);
    let _ = std::io::stdout().lock().write_all(&text);
    Code::Success
}
