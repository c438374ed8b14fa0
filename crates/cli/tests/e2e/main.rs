//! End to end: the `vmferry` binary, real libvirt hosts, guests that boot. One file a topic.
//!
//! Every test ends with the same check, that nothing is left but what was asked for: [`support::Lab::assert_only_arrived`].

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod bounds;
mod cleanup;
mod connections;
mod crossing;
mod deletion;
mod hints;
mod manifests;
mod refusals;
mod restart;
mod retry;
mod stores;
mod support;
