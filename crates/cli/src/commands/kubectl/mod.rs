//! `kubectl vmferry`: the same binary as a plugin of kubectl, and as `vmferry kube`.
//!
//! Architecture Invariant: a plugin only looks, and asks by annotation. What is done about it is the controller's.

pub mod args;

mod ask;
mod client;
mod describe;
mod logs;
mod status;
mod view;

use std::ffi::OsStr;
use std::path::Path;

use args::{Command, Kubectl};
use client::Cluster;

use crate::exit::{Code, Failure};

/// Whether the binary was called by the name that kubectl looks for.
pub fn called_as_plugin() -> bool {
    let name = std::env::args_os().next();
    name.as_deref().map(Path::new).and_then(Path::file_stem) == Some(OsStr::new(args::PLUGIN))
}

/// Does what was asked for.
pub async fn kubectl(args: Kubectl) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&args.cluster).await?;
    match &args.command {
        Command::Status(args) => status::status(&cluster, args).await,
        Command::Describe(args) => describe::describe(&cluster, &args.name).await,
        Command::Retry(args) => ask::retry(&cluster, &args.name).await,
        Command::Cancel(args) => ask::cancel(&cluster, &args.name).await,
        Command::Logs(args) => logs::logs(&cluster, args).await,
    }
}
