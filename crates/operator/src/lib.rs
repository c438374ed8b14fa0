//! The engine on Kubernetes: its `Store`, `Events` and `Executor` on an API server, and the controller that calls its steps.
//!
//! Architecture Invariant: nothing about a migration is decided here. What is decided is when a step is called, where state
//! is kept and where a job runs.

pub mod jobs;
