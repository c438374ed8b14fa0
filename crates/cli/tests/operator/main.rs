//! The operator, end to end: the scenarios of the `e2e` tests, not a copy of them, as a cluster's user has them. Manifests are
//! applied, `vmferry controller` drives them, and `vmferry worker` moves the bytes in the pods of Jobs, each with the access that
//! the manifests of the installation give it.
//!
//! What is left out is only said by `vmferry run`: what it answers to manifests, and what its process may use.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod example;
mod replicas;
mod support;
mod unlike;
mod upkeep;
mod workers;

// Not all that can be seen of a hypervisor is looked at here.
#[allow(dead_code)]
#[path = "../matrix/side/mod.rs"]
mod side;

#[path = "../e2e/cleanup.rs"]
mod cleanup;
#[path = "../e2e/connections.rs"]
mod connections;
#[path = "../e2e/crossing.rs"]
mod crossing;
#[path = "../e2e/deletion.rs"]
mod deletion;
#[path = "../e2e/hints.rs"]
mod hints;
#[path = "../e2e/refusals.rs"]
mod refusals;
#[path = "../e2e/restart.rs"]
mod restart;
#[path = "../e2e/retry.rs"]
mod retry;
#[path = "../e2e/stores/crossing.rs"]
mod stores;
