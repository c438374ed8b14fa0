//! The `vmferry` command: arguments, wiring, terminal.
//!
//! Architecture Invariant: nothing here knows how a VM is moved. Commands read manifests, choose adapters
//! ([`wiring`]), call the engine step by step ([`drive`]) and show what it reports ([`output`]).

mod args;
mod clock;
mod commands;
mod drive;
mod exit;
mod input;
mod logging;
mod output;
mod scratch;
mod state;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    logging::init(&args.logging, args.command.is_service());
    match commands::dispatch(args.command) {
        Ok(code) => code.into(),
        Err(failure) => {
            output::error(&failure);
            failure.code.into()
        }
    }
}
