//! `vmferry controller`.

pub(super) mod admission;
pub mod args;
pub(super) mod executor;
pub mod place;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmferry_engine::port::{Connector, Store};
use vmferry_engine::{Config, Ports};
use vmferry_operator::{LeaseSettings, Observer, Operator, Settings, Spans, Upkeep};
use vmferry_staging::limit::Bucket;

use self::args::{Controller, ProvidersMode};
use self::executor::Moving;
use crate::args::Verify;
use crate::clock::SystemClock;
use crate::drive::interrupted;
use crate::exit::{Code, Failure};
use crate::wiring::Wiring;

/// How often progress is written at most: no user reads faster, and every write is one for all who watch.
const PROGRESS: Duration = Duration::from_secs(3);

/// Works until a signal comes.
pub async fn controller(args: Controller) -> Result<Code, Failure> {
    let stop = stopped_by_signal();
    let hosts = args.hosts.policy().map_err(Failure::bad_input)?;
    let runtime = place::runtime(args.runtime_dir.as_deref())?;
    let client = place::client().await?;
    let webhook = admission::start(&args.admission, &client, &stop).await?;
    let operator = Operator::new(client.clone(), settings(&args)?);

    let limit = args.limits.bandwidth_limit.map(|rate| Bucket::new(rate.0));
    let connector: Arc<dyn Connector> = Arc::new(Wiring::new(runtime.path().to_owned(), hosts).limited(limit));
    let store: Arc<dyn Store> = operator.store();
    let moving = Moving::new(&args, client, &connector, &store)?;
    let ports = Ports {
        store,
        connector,
        executor: Arc::clone(&moving.executor),
        clock: Arc::new(SystemClock),
        events: operator.events(),
    };
    let done = Box::pin(operator.run(ports, config(&args), stop, moving.end())).await;
    if done.is_ok()
        && let Some(webhook) = webhook
    {
        // It ends what is under way, within a limit of its own.
        let _ = webhook.await;
    }
    done.map(|()| Code::Success).map_err(Failure::failed)
}

fn settings(args: &Controller) -> Result<Settings, Failure> {
    let identity = place::identity(args.election.identity.as_deref());
    let lease = args.election.leader_elect.then(|| LeaseSettings {
        namespace: place::namespace(args.election.lease_namespace.as_deref()),
        name: args.election.lease_name.clone(),
        identity: identity.clone(),
    });
    let spans = args.otlp_endpoint.as_deref().map(Spans::to).transpose();
    let spans = spans.map_err(|detail| {
        let endpoint = args.otlp_endpoint.as_deref().unwrap_or_default();
        Failure::bad_input(format!(
            "cannot use --otlp-endpoint {endpoint}: {detail}; set it to a URL such as http://collector:4318"
        ))
    })?;
    Ok(Settings {
        watch_namespace: args.watch_namespace.clone(),
        lease,
        identity,
        upkeep: match args.providers {
            ProvidersMode::Auto => Upkeep::Auto,
            ProvidersMode::Manage => Upkeep::Manage,
            ProvidersMode::Read => Upkeep::Read,
        },
        metrics_addr: Some(args.metrics_addr),
        health_addr: Some(args.health_addr),
        observers: spans
            .map(|spans| Arc::new(spans) as Arc<dyn Observer>)
            .into_iter()
            .collect(),
    })
}

fn config(args: &Controller) -> Config {
    let limits = &args.limits;
    Config {
        max_concurrent: usize::from(limits.max_concurrent),
        max_per_provider: limits.max_per_provider.map(usize::from),
        max_per_host: limits.max_per_host.map(usize::from),
        readback: args.verify == Verify::Readback,
        progress_interval: PROGRESS,
        ..Config::default()
    }
}

/// Cancelled by the first SIGINT or SIGTERM.
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
