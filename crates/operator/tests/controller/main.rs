//! The operator on a real API server: what it saves and tells, who leads, and what it does when the cluster does not do its part.
//!
//! No hypervisor answers here: a migration comes as far as to be tried again, which is enough to see that it is looked after.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod cluster;
mod events;
mod leading;
mod store;
mod support;
mod unwilling;
