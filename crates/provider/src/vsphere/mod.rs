//! VMware vSphere: vCenter and ESXi, through the SOAP API at `/sdk`.

use crate::credentials::Credentials;

/// What it takes to connect to a vCenter or an ESXi host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Provider's `spec.endpoint`: `https://vc/sdk`, `https://vc`, or a bare host.
    pub endpoint: String,
    /// What lets us in.
    pub credentials: Credentials,
    /// Whether certificates go unverified: only where the user says so.
    pub insecure: bool,
    /// Where VMs go.
    pub placement: Placement,
}

/// Where VMs go: the Provider's `spec.defaults`. Names or inventory paths; what is not given is chosen where there is only one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Datacenter.
    pub datacenter: Option<String>,
    /// Cluster or host (compute resource).
    pub cluster: Option<String>,
    /// One host of the cluster.
    pub host: Option<String>,
    /// Resource pool.
    pub resource_pool: Option<String>,
    /// VM folder.
    pub folder: Option<String>,
    /// Datastore or datastore cluster for disks, where a migration names none.
    pub datastore: Option<String>,
    /// Network for interfaces that nothing else says a network for.
    pub network: Option<String>,
}
