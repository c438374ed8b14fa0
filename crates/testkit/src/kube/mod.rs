//! A real Kubernetes: etcd, an API server and its controllers, and a stand-in for the kubelet that runs Pods as processes.
//!
//! - [`Cluster`] is a control plane of its own on a loopback address of its own, gone with the test, however the test ends. Its
//!   API server can be killed and started again.
//! - [`Kubelet`] is the one node of a cluster: what a Pod asks for is given to a process of this machine.
//!
//! The programs are those on `PATH`, or what `KUBE_APISERVER`, `KUBE_CONTROLLER_MANAGER` and `ETCD` name, or what
//! `scripts/deps.sh kube` has put into the cache: Kubernetes 1.20. Newer ones do as well.

mod access;
mod background;
mod cluster;
mod crd;
mod kubelet;
mod objects;
mod programs;

pub use access::Access;
pub use cluster::{Cluster, ClusterSpec};
pub use kubelet::{Kubelet, KubeletSpec, RunningPod};
pub use objects::Kind;
