//! The Proxmox VE provider as a target, against a cluster that moves real bytes and checks each request against the official schema.
#![cfg(feature = "proxmox")]
#![allow(clippy::unwrap_used, missing_docs)]

mod by_ssh;
mod connect;
mod faults;
mod paths;
mod refusals;
mod site;
mod vms;
