//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use vmferry_api::{ByteRate, GoDuration};
use vmferry_staging::{HostPolicy, InvalidRule};

/// Moves virtual machines between hypervisors, through staging storage, as VMMigration resources declare it.
#[derive(Debug, Parser)]
#[command(name = "vmferry", version, propagate_version = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub logging: Logging,
}

/// What is logged to standard error, and how.
#[derive(Debug, ClapArgs)]
pub struct Logging {
    /// Logs more to standard error: -v progress of steps, -vv details, -vvv everything. VMFERRY_LOG takes a filter instead.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// The form of the log. Default: text, or json for what runs on a cluster.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "VMFERRY_LOG_FORMAT")]
    pub log_format: Option<Format>,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a copied volume is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// The content digest of what goes into the target must equal the source's.
    Stream,
    /// As `stream`, and every target volume is read once more and compared.
    Readback,
}

/// Where the manifests are.
#[derive(Debug, Clone, ClapArgs)]
pub struct Files {
    /// Manifests: a file, a folder (its .yaml, .yml and .json files), or `-` for standard input. May be given several times.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// Where the state is.
#[derive(Debug, Clone, ClapArgs)]
pub struct State {
    /// The state directory. Default: $XDG_STATE_HOME/vmferry, else ~/.local/state/vmferry.
    #[arg(long = "state", value_name = "DIR", env = "VMFERRY_STATE")]
    pub dir: Option<PathBuf>,
}

/// Which migrations are shown or deleted.
#[derive(Debug, Clone, ClapArgs)]
pub struct Namespace {
    /// The namespace of names that do not say theirs (NAMESPACE/NAME does).
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// At which hosts staging storage may be.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct StorageHosts {
    /// Opens staging storage at these hosts only: names, *.domain, addresses, networks (10.0.0.0/8), separated by commas; may
    /// be given several times. Default: any host but link-local and metadata addresses, which are never used.
    #[arg(
        long = "allowed-storage-hosts",
        value_name = "HOST[,HOST]",
        value_delimiter = ',',
        value_parser = rule,
        env = "VMFERRY_ALLOWED_STORAGE_HOSTS"
    )]
    rules: Vec<String>,
}

/// A text that is a rule.
fn rule(text: &str) -> Result<String, InvalidRule> {
    HostPolicy::allowing([text]).map(|_| text.to_owned())
}

impl StorageHosts {
    /// The rules, as they were given.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// As a policy.
    pub fn policy(&self) -> Result<HostPolicy, InvalidRule> {
        HostPolicy::allowing(self.rules.iter().map(String::as_str))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs all migrations of the manifests to their end. The same command continues what was interrupted.
    #[command(
        after_help = "Exit status: 0 all Ready, 1 any Failed or the timeout reached, 2 bad input and nothing \
                            started, 130 interrupted with the state kept."
    )]
    Run(Run),
    /// Checks manifests without making anything.
    #[command(
        after_help = "Exit status: 0 all is well, 1 a host, VM or storage is not fit for it (--connect), 2 bad input."
    )]
    Validate(Validate),
    /// Lists migrations.
    Get(Get),
    /// Shows everything about a migration: conditions, disks, events.
    Describe(Describe),
    /// Deletes migrations, and what they made unless they are Ready.
    Delete(Delete),
    /// Drives the migrations of a Kubernetes cluster, for as long as it runs.
    #[command(after_help = "Exit status: 0 stopped by a signal, 1 the lease was lost, 2 bad usage or no cluster.")]
    Controller(Box<crate::commands::controller::args::Controller>),
    /// Runs one job of a Kubernetes cluster; the controller starts it.
    #[command(
        after_help = "Exit status: 0 what came of the job is written down, 1 it was called off or lost, 2 bad usage."
    )]
    Worker(Box<crate::commands::worker::Worker>),
    /// Looks at the migrations of a Kubernetes cluster: what `kubectl vmferry` does where this binary is on the path as
    /// kubectl-vmferry.
    Kube(Box<crate::commands::kubectl::args::Kubectl>),
    /// Prints the CustomResourceDefinitions, or writes them.
    Crds(Crds),
    /// Looks at disk images and converts them: raw, qcow2, vmdk, and what qemu-nbd reads.
    #[command(
        after_help = "Exit status: 0 done, 1 damaged, refused or failed (the reason is on standard error), 2 bad \
                            usage, 130 interrupted with nothing left."
    )]
    Image(crate::commands::image::args::Image),
    /// Explains how vmferry works.
    Explain(Explain),
    /// Prints the completions of a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

impl Command {
    /// Whether it runs on a cluster, where nobody sits before it.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Controller(_) | Self::Worker(_))
    }
}

/// `vmferry run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub state: State,
    /// The form of what is shown.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Stops after this long, e.g. 30m, with the state kept. Default: no limit.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<GoDuration>,
    /// How the copied volumes are verified.
    #[arg(long, value_enum, default_value_t = Verify::Stream)]
    pub verify: Verify,
    /// How many migrations run at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_concurrent: u16,
    /// How many of them use one Provider at once, as source or target. Default: no limit of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_per_provider: Option<u16>,
    /// How many of them use one host at once, whichever Providers lead to it. Default: no limit of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_per_host: Option<u16>,
    /// Moves at most this many bytes per second to and from staging storage, all migrations together, e.g. 50MiB. One
    /// migration's own limit is its annotation migration.virtrigaud.io/bandwidth-limit.
    #[arg(long, value_name = "RATE")]
    pub bandwidth_limit: Option<ByteRate>,
    #[command(flatten)]
    pub hosts: StorageHosts,
}

/// `vmferry validate`.
#[derive(Debug, ClapArgs)]
pub struct Validate {
    #[command(flatten)]
    pub files: Files,
    /// Connects to the hosts and looks at VMs, disks, pools and staging storage, too.
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    pub state: State,
    #[command(flatten)]
    pub hosts: StorageHosts,
}

/// `vmferry get`.
#[derive(Debug, ClapArgs)]
pub struct Get {
    /// The migration; all where none is named.
    pub name: Option<String>,
    #[command(flatten)]
    pub namespace: Namespace,
    #[command(flatten)]
    pub state: State,
    /// The form of what is shown.
    #[arg(short, long, value_enum, default_value_t = GetFormat::Text)]
    pub output: GetFormat,
}

/// A form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetFormat {
    /// A table.
    Text,
    /// A table with providers, checksum and message.
    Wide,
    /// One JSON object a line: the resource with its status.
    Json,
}

/// `vmferry describe`.
#[derive(Debug, ClapArgs)]
pub struct Describe {
    /// The migration.
    pub name: String,
    #[command(flatten)]
    pub namespace: Namespace,
    #[command(flatten)]
    pub state: State,
}

/// `vmferry delete`.
#[derive(Debug, ClapArgs)]
pub struct Delete {
    /// The migrations.
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub namespace: Namespace,
    /// Manifests with the Secrets, and with Providers and VirtualMachines that have changed. Default: the files from which the
    /// migration was last run.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub state: State,
    #[command(flatten)]
    pub hosts: StorageHosts,
    /// The form of what is shown.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Stops after this long, with the state kept: the same command continues.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub timeout: GoDuration,
}

/// `vmferry crds`.
#[derive(Debug, ClapArgs)]
pub struct Crds {
    /// Writes them to files in this folder.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
}

/// `vmferry explain`.
#[derive(Debug, ClapArgs)]
pub struct Explain {
    /// What to explain.
    #[arg(value_enum)]
    pub topic: Topic,
    /// As Markdown.
    #[arg(long)]
    pub markdown: bool,
}

/// What can be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// The phases of a migration: what each does, when it is done, how it is undone.
    Phases,
}
