//! The command line of `vmferry controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args as ClapArgs, ValueEnum};
use vmferry_api::{ByteRate, GoDuration};

use super::admission::Admission;
use crate::args::{StorageHosts, Verify};

/// `vmferry controller`.
#[derive(Debug, ClapArgs)]
pub struct Controller {
    /// Looks only at the migrations of this namespace. Default: of all.
    #[arg(long, value_name = "NAMESPACE", env = "VMFERRY_WATCH_NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    pub watch_namespace: Option<String>,
    /// Who moves the bytes.
    #[arg(long, value_enum, default_value_t = ExecutorKind::Job, env = "VMFERRY_EXECUTOR")]
    pub executor: ExecutorKind,
    #[command(flatten)]
    pub limits: Limits,
    /// Where metrics are served.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        env = "VMFERRY_METRICS_ADDR"
    )]
    pub metrics_addr: SocketAddr,
    /// Where /healthz and /readyz are served.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8081",
        env = "VMFERRY_HEALTH_ADDR"
    )]
    pub health_addr: SocketAddr,
    /// The OpenTelemetry collector that is told of phases: a trace for each migration, a span for each phase. Default: none.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = NonEmptyStringValueParser::new())]
    pub otlp_endpoint: Option<String>,
    /// Whether the status of Providers (their health) and of the VirtualMachines that migrations touch is kept.
    #[arg(long, value_enum, default_value_t = ProvidersMode::Auto, env = "VMFERRY_PROVIDERS")]
    pub providers: ProvidersMode,
    #[command(flatten)]
    pub election: Election,
    #[command(flatten)]
    pub admission: Admission,
    #[command(flatten)]
    pub hosts: StorageHosts,
    /// How the copied volumes are verified.
    #[arg(long, value_enum, default_value_t = Verify::Stream, env = "VMFERRY_VERIFY")]
    pub verify: Verify,
    /// The folder for sockets of this process. Default: one of its own under the temporary folder.
    #[arg(long, value_name = "DIR", env = "VMFERRY_RUNTIME_DIR")]
    pub runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub workers: Workers,
}

/// Whether the status of Providers and VirtualMachines is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProvidersMode {
    /// Of those whose status nobody else writes.
    Auto,
    /// Of all.
    Manage,
    /// Of none: another operator does.
    Read,
}

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutorKind {
    /// A Job on the cluster for each data phase.
    Job,
    /// This process: for small installations and for development.
    Inline,
}

/// How much is done at once.
#[derive(Debug, ClapArgs)]
pub struct Limits {
    /// How many migrations run at once.
    #[arg(long, value_name = "N", default_value_t = 10, env = "VMFERRY_MAX_CONCURRENT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_concurrent: u16,
    /// How many of them use one Provider at once, as source or target. Default: no limit of its own.
    #[arg(long, value_name = "N", env = "VMFERRY_MAX_PER_PROVIDER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_per_provider: Option<u16>,
    /// How many of them use one host at once, whichever Providers lead to it. Default: no limit of its own.
    #[arg(long, value_name = "N", env = "VMFERRY_MAX_PER_HOST", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_per_host: Option<u16>,
    /// Moves at most this many bytes per second to and from staging storage: all migrations together where this process moves
    /// them, each migration by itself where Jobs do.
    #[arg(long, value_name = "RATE", env = "VMFERRY_BANDWIDTH_LIMIT")]
    pub bandwidth_limit: Option<ByteRate>,
}

/// How the Jobs are run.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Workers, with --executor job")]
pub struct Workers {
    /// The image of the workers: the one that this process runs from.
    #[arg(
        long,
        value_name = "IMAGE",
        env = "VMFERRY_WORKER_IMAGE",
        required_if_eq("executor", "job")
    )]
    pub worker_image: Option<String>,
    /// Their service account, in the namespace of each migration. Default: the namespace's default one.
    #[arg(long, value_name = "NAME", env = "VMFERRY_WORKER_SERVICE_ACCOUNT")]
    pub worker_service_account: Option<String>,
    /// A file with a PodTemplateSpec in YAML that lies under theirs: resources, nodeSelector, tolerations, priorityClassName.
    /// What it says of a container with the name `worker` is said of the worker.
    #[arg(long, value_name = "FILE", env = "VMFERRY_WORKER_POD_TEMPLATE")]
    pub worker_pod_template: Option<PathBuf>,
    /// How long a pod may take until its worker is heard of, before it is started anew.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10m",
        env = "VMFERRY_WORKER_START_LIMIT"
    )]
    pub worker_start_limit: GoDuration,
    /// Lets the cluster mount NFS storage that has an endpoint, instead of reaching it by a client of our own.
    #[arg(long, env = "VMFERRY_NFS_VOLUMES")]
    pub nfs_volumes: bool,
}

/// Which replica leads.
#[derive(Debug, ClapArgs)]
pub struct Election {
    /// Works only while this replica holds the lease.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", env = "VMFERRY_LEADER_ELECT")]
    pub leader_elect: bool,
    /// Namespace of the lease. Default: this pod's.
    #[arg(long, value_name = "NAMESPACE", env = "VMFERRY_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of the lease.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "vmferry-controller",
        env = "VMFERRY_LEASE_NAME"
    )]
    pub lease_name: String,
    /// The name of this replica. Default: the pod's name, else the host's, and a random part.
    #[arg(long, value_name = "NAME", env = "VMFERRY_IDENTITY")]
    pub identity: Option<String>,
}
