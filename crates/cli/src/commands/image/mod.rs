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

use tokio::signal::unix::{SignalKind, signal};

use args::{Action, Image};

use crate::exit::{Code, Failure};

/// Does what was asked for, or stops at a signal: all that was begun is then undone by its guards.
pub async fn image(args: Image) -> Result<Code, Failure> {
    tokio::select! {
        outcome = act(&args.action) => outcome,
        stopped = stop() => Err(stopped?),
    }
}

async fn act(action: &Action) -> Result<Code, Failure> {
    match action {
        Action::Info(args) => info::info(args).await,
        Action::Map(args) => map::map(args).await,
        Action::Check(args) => check::check(args).await,
        Action::Convert(args) => convert::convert(args).await,
    }
}

/// Waits for a signal to stop.
async fn stop() -> Result<Failure, Failure> {
    let cannot = |error| Failure::failed(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(Failure {
        code: Code::Interrupted,
        messages: vec!["interrupted: what was not whole yet is removed".to_owned()],
    })
}
