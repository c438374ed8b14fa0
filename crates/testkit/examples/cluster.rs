//! A Kubernetes cluster to measure on: `cluster ENTRYPOINT`.
//!
//! It knows vmferry's resources, and its one node runs ENTRYPOINT for every image. Prints the path of the administrator's kubeconfig when it is up, and is gone when
//! its standard input ends.

#![expect(clippy::unwrap_used, reason = "a tool for benchmarks")]

use std::io::{self, Read as _, Write as _};

use vmferry_api::crd;
use vmferry_testkit::kube::{Cluster, ClusterSpec, Kubelet};

fn main() {
    let Some(entrypoint) = std::env::args().nth(1) else {
        eprintln!("usage: cluster ENTRYPOINT");
        std::process::exit(2);
    };
    let spec = ClusterSpec {
        crds: crd::all().iter().map(|crd| crd.json.clone()).collect(),
        // Thousands of objects are in it.
        memory_mib: 1024,
        ..ClusterSpec::default()
    };
    let cluster = Cluster::with(&spec);
    let kubelet = Kubelet::start(&cluster, entrypoint);
    println!("{}", cluster.kubeconfig().display());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(kubelet);
}
