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
    let done = if commands::kubectl::called_as_plugin() {
        plugin()
    } else {
        let args = args::Args::parse();
        logging::init(&args.logging, args.command.is_service());
        commands::dispatch(args.command)
    };
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            output::error(&failure);
            failure.code.into()
        }
    }
}

/// As a plugin of kubectl, the binary has that plugin's command line.
fn plugin() -> Result<exit::Code, exit::Failure> {
    let args = Plugin::parse();
    logging::init(&args.logging, false);
    commands::kubectl(args.kubectl)
}

/// The plugin's command line.
#[derive(Debug, Parser)]
#[command(
    name = commands::kubectl::args::PLUGIN,
    bin_name = "kubectl vmferry",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Plugin {
    #[command(flatten)]
    kubectl: commands::kubectl::args::Kubectl,
    #[command(flatten)]
    logging: args::Logging,
}
