//! What is installed on a cluster, on a real API server: the chart's manifests, their rights, and the admission webhook.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod admission;
mod manifests;
mod support;
