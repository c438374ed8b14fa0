//! Every way from one kind of hypervisor to another, over every kind of staging storage: the `vmferry` binary between real libvirt
//! hosts, vSphere servers that keep the bytes, and Proxmox VE clusters that check every request against the official schema.
//!
//! Every test ends with the same check, that nothing is left but what was asked for: [`journey::Journey::arrived`].

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod journey;
mod pairs;
mod round;
mod side;
mod support;
mod trouble;
mod validate;
