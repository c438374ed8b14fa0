//! The commands, a file each.

mod completion;
pub mod controller;
mod crds;
mod delete;
mod describe;
mod explain;
mod get;
pub mod image;
pub mod kubectl;
mod run;
mod validate;
pub mod worker;

use std::future::Future;
use std::time::Duration;

use crate::args::Command;
use crate::exit::{Code, Failure};

/// Does what was asked for.
pub fn dispatch(command: Command) -> Result<Code, Failure> {
    match command {
        Command::Run(args) => wait_for(run::run(args)),
        Command::Validate(args) => wait_for(validate::validate(args)),
        Command::Get(args) => get::get(&args),
        Command::Describe(args) => describe::describe(&args),
        Command::Delete(args) => wait_for(delete::delete(args)),
        Command::Controller(args) => wait_for(controller::controller(*args)),
        Command::Worker(args) => wait_for(worker::worker(*args)),
        Command::Kube(args) => kubectl(*args),
        Command::Crds(args) => crds::crds(&args),
        Command::Image(args) => wait_for(image::image(args)),
        Command::Explain(args) => Ok(explain::explain(&args)),
        Command::Completion { shell } => Ok(completion::completion(shell)),
    }
}

/// Looks at a cluster.
pub fn kubectl(args: kubectl::args::Kubectl) -> Result<Code, Failure> {
    wait_for(kubectl::kubectl(args))
}

/// Reads or writes files from a command that waits for things, without holding up what else its thread has to do.
fn on_disk<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// How long the threads may take to end when all is done.
const ENDING: Duration = Duration::from_secs(1);

/// Runs a command that waits for things.
fn wait_for(command: impl Future<Output = Result<Code, Failure>>) -> Result<Code, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the threads that do the work: {error}")))?;
    let result = runtime.block_on(command);
    // Threads that end while the process does would find the C libraries below them gone already. Whatever is still in a
    // blocking call (a host that does not answer) does not end, and is not waited for.
    runtime.shutdown_timeout(ENDING);
    result
}
