//! `kubectl vmferry` against a real API server. What a controller would write into the status is written by the test.

#![allow(clippy::unwrap_used)]

mod asking;
mod looking;
mod support;
