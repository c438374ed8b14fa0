//! `vmferry image`: the formats, in users' hands.
//!
//! Formats are what the user or the file's name says, never what content claims. Other files than the named one are opened
//! only inside one folder ([`pool`]).

pub mod args;
mod check;
mod convert;
mod foreign;
mod format;
mod info;
mod map;
mod nbd;
mod open;
mod place;
mod pool;
mod store;

use std::future::Future;

use args::{Action, Image};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};

/// Does what was asked for, or stops at a signal: all that was begun is then undone by its guards.
pub async fn image(args: Image) -> Result<Code, Failure> {
    let stop = stop_at_signal()?;
    match &args.action {
        Action::Info(args) => unless(&stop, info::info(args)).await,
        Action::Map(args) => unless(&stop, map::map(args)).await,
        Action::Check(args) => unless(&stop, check::check(args)).await,
        Action::Convert(args) => convert::convert(args, &stop).await,
    }
}

/// Does something, or drops it where all is to stop.
async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(interrupted()),
        outcome = work => outcome,
    }
}

fn interrupted() -> Failure {
    Failure {
        code: Code::Interrupted,
        messages: vec!["interrupted: what was not whole yet is removed".to_owned()],
    }
}

/// Cancels the token at a signal to stop.
fn stop_at_signal() -> Result<CancellationToken, Failure> {
    let cannot = |error| Failure::failed(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let stop = CancellationToken::new();
    let at_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        at_signal.cancel();
    });
    Ok(stop)
}
