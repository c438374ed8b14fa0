//! Runs the data phases.
//!
//! [`run_job`] does a whole job wherever it is called: it opens the adapters by way of the ports and lets the mover move the
//! disks, several at once. [`InlineExecutor`] runs it on tasks of this process, for the engine to start, observe and
//! cancel; a worker on a cluster runs the same function and reports the same progress.
//!
//! Architecture Invariant: a job carries no secret. Secrets are looked up in the store at the moment that they are needed
//! and handed to the connector, and to nothing else.

mod budget;
mod failure;
mod inline;
mod open;
mod progress;
mod run;

pub use inline::{InlineExecutor, RunningJob};
pub use progress::JobProgress;
pub use run::run_job;
