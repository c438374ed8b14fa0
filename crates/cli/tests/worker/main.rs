//! Workers on a cluster: a real API server with its controllers, a stand-in for the kubelet that runs `vmferry worker` as a
//! process, and disks of a real libvirt host that are staged in a folder.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod bed;
mod lost;
mod outage;
mod whole;
