//! `kubectl vmferry …`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// What kubectl calls the binary where it is a plugin.
pub const PLUGIN: &str = "kubectl-vmferry";

/// Looks at the migrations of a Kubernetes cluster, and asks for what they are to do next.
#[derive(Debug, ClapArgs)]
#[command(arg_required_else_help = true)]
pub struct Kubectl {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Which cluster, as kubectl has it.
#[derive(Debug, Clone, ClapArgs)]
pub struct Cluster {
    /// The kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else the pod's own account.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current one.
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows how far migrations are, each disk with its rate and the time that is left.
    #[command(
        after_help = "Exit status with NAME and --watch: 0 it became Ready, 1 it failed or was deleted. Otherwise 0, or 1 \
                            where the cluster did not answer as hoped."
    )]
    Status(Status),
    /// Shows everything about a migration: conditions, disks, events.
    Describe(Named),
    /// Tries again: a retry that waits is due at once, and a migration that failed starts from the beginning.
    Retry(Named),
    /// Gives up: what the migration made is undone, and it is Failed.
    Cancel(Named),
    /// Prints the log of the worker that moves, or moved last, a migration's bytes.
    Logs(Logs),
}

/// `status`.
#[derive(Debug, ClapArgs)]
pub struct Status {
    /// The migration; all of the namespace where none is named.
    pub name: Option<String>,
    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Goes on showing what changes; of one migration, until it comes to its end.
    #[arg(short, long)]
    pub watch: bool,
}

/// A migration.
#[derive(Debug, ClapArgs)]
pub struct Named {
    /// The migration.
    pub name: String,
}

/// `logs`.
#[derive(Debug, ClapArgs)]
pub struct Logs {
    /// The migration.
    pub name: String,
    /// Goes on until the migration comes to its end, from one worker to the next.
    #[arg(short, long)]
    pub follow: bool,
}
