//! VMware vSphere: vCenter and ESXi, through the SOAP API at `/sdk`.
//!
//! [`VSphere`] is one server. [`soap`] is what is said, [`client`] says it, [`lease`] is how bytes move beside it, and
//! [`inventory`] finds what is there and reads a VM's hardware.
//!
//! Architecture Invariant: vCenter and ESXi are one code path. Where they differ, they are asked, never told apart by version.

mod addresses;
mod client;
mod hypervisor;
mod inventory;
mod lease;
mod soap;
mod source;
mod target;

use std::sync::Arc;

use client::Client;

use crate::Error;
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

/// A vCenter or an ESXi host. Cheap to clone: clones share one session, which is made anew when it ended.
#[derive(Clone)]
pub struct VSphere {
    client: Client,
    placement: Arc<Placement>,
    leases: Arc<source::Leases>,
}

impl VSphere {
    /// Connects to a server, and logs in.
    ///
    /// # Errors
    /// [`Invalid`](crate::Kind::Invalid) for an endpoint that is none, [`Untrusted`](crate::Kind::Untrusted) for a certificate that
    /// nobody vouches for, [`Denied`](crate::Kind::Denied) for wrong credentials, [`Unsupported`](crate::Kind::Unsupported) for
    /// a version that is too old, [`Unreachable`](crate::Kind::Unreachable) for a server that does not answer.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Client::connect(&config).await?;
        Ok(Self {
            client,
            placement: Arc::new(config.placement),
            leases: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests;
