//! The reference of `VMMigration`, line by line, on a real API server: what it takes and refuses, what the operator does about
//! it, and what it says. `docs/conformance.md` has a row for each line; [`rows`] holds it to the tests that it names.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod access;
mod cluster;
mod fields;
mod requests;
mod rows;
mod rules;
mod telling;

// Not all that the scenarios need is needed here.
#[allow(dead_code, unused_imports)]
#[path = "../operator/support/mod.rs"]
mod support;
