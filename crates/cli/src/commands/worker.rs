//! `vmferry worker`: one job of the cluster, from its lease to what came of it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use rustix::process::{Signal, getpid, kill_process};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use vmferry_api::ByteRate;
use vmferry_engine::port::{Job, JobState};
use vmferry_operator::jobs::{self, Claim, Heartbeat, WorkerStore};
use vmferry_staging::limit::Bucket;
use vmferry_worker::{JobProgress, run_job};

use super::controller::place;
use crate::args::StorageHosts;
use crate::drive::interrupted;
use crate::exit::{Code, Failure};
use crate::wiring::Wiring;

/// `vmferry worker`.
#[derive(Debug, ClapArgs)]
pub struct Worker {
    /// The job, as JSON.
    #[arg(long, value_name = "JSON", env = jobs::ENV_JOB, hide_env_values = true)]
    pub job: String,
    /// The run of the job that this worker belongs to.
    #[arg(long, value_name = "RUN", env = jobs::ENV_RUN, hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub run: String,
    /// This worker's own name: that of its pod.
    #[arg(long, value_name = "NAME", env = jobs::ENV_POD_NAME, hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// The folder with the Secrets, <namespace>/<name>/<key>. One that is not there is read from the cluster.
    #[arg(long, value_name = "DIR", env = jobs::ENV_SECRETS_DIR)]
    pub secrets_dir: Option<PathBuf>,
    /// The folder for sockets of this process. Default: one of its own under the temporary folder.
    #[arg(long, value_name = "DIR", env = jobs::ENV_RUNTIME_DIR)]
    pub runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub hosts: StorageHosts,
    /// Moves at most this many bytes per second to and from staging storage.
    #[arg(long, value_name = "RATE", env = "VMFERRY_BANDWIDTH_LIMIT")]
    pub bandwidth_limit: Option<ByteRate>,
}

/// Runs the job, and says what came of it.
pub async fn worker(args: Worker) -> Result<Code, Failure> {
    let job: Job = serde_json::from_str(&args.job)
        .map_err(|error| Failure::bad_input(format!("{} is no job: {error}", jobs::ENV_JOB)))?;
    let span = tracing::info_span!("worker", job = %job.id, uid = %job.owner.uid, migration = %job.migration);
    run(&job, args).instrument(span).await
}

async fn run(job: &Job, args: Worker) -> Result<Code, Failure> {
    let stop = stopped_by_signal();
    let hosts = args.hosts.policy().map_err(Failure::bad_input)?;
    let runtime = place::runtime(args.runtime_dir.as_deref())?;
    let client = place::client().await?;
    let limit = args.bandwidth_limit.map(|rate| Bucket::new(rate.0));
    let wiring = Wiring::new(runtime.path().to_owned(), hosts).limited(limit);
    let store = WorkerStore::new(client.clone(), args.secrets_dir);
    let progress = JobProgress::new(job);

    let (claim, told) = (Claim::new(job, args.run, args.name), progress.clone());
    let heartbeat = Heartbeat::take(client, claim, Arc::new(move || told.disks()), stop.clone(), end_at_once);
    let heartbeat = heartbeat.await.map_err(Failure::failed)?;
    tracing::info!(disks = job.disks.len(), "the lease is taken; moving");
    let outcome = match run_job(job, &wiring, &store, &progress, &stop).await {
        Ok(reports) => Some(JobState::Succeeded(reports)),
        Err(failure) if stop.is_cancelled() => {
            tracing::warn!("called off: {}", failure.message);
            None
        }
        Err(failure) => {
            tracing::error!(kind = ?failure.kind, "job failed: {}", failure.message);
            Some(JobState::Failed(failure))
        }
    };
    let called_off = outcome.is_none();
    heartbeat.give_back(outcome).await.map_err(Failure::failed)?;
    if called_off {
        return Err(Failure::failed("called off; what arrived is kept for the next worker"));
    }
    tracing::info!("what came of the job is written down");
    Ok(Code::Success)
}

/// Cancelled by SIGINT or SIGTERM.
fn stopped_by_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let (token, signal) = (stop.clone(), interrupted());
    tokio::spawn(async move {
        match signal.await {
            Ok(()) => token.cancel(),
            Err(failure) => tracing::error!("{}", failure.messages.join("; ")),
        }
    });
    stop
}

/// Ends this process in the middle of whatever it does: no destructor runs, and no byte moves after that.
fn end_at_once() {
    // It cannot fail: a process may kill itself.
    let _ = kill_process(getpid(), Signal::KILL);
}
