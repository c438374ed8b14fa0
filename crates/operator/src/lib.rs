//! The engine on Kubernetes: its `Store`, `Events` and `Executor` on an API server, and the controller that calls its steps.
//!
//! Architecture Invariant: nothing about a migration is decided here. What is decided is when a step is called, where state
//! is kept and where a job runs.

mod cache;
mod call;
mod controller;
mod error;
mod events;
mod http;
pub mod jobs;
mod lease;
mod metrics;
mod spans;
mod store;
mod upkeep;
mod watching;
pub mod webhook;

pub use cache::{Cache, Cached, Change};
pub use call::CallError;
pub use controller::{Operator, Settings};
pub use error::Error;
pub use events::KubeEvents;
pub use lease::{Leadership, LeaseSettings};
pub use spans::Spans;
pub use store::{FIELD_MANAGER, KubeStore, Observer};
pub use upkeep::Upkeep;
