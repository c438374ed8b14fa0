//! Proxmox VE: a cluster or a single node, through its REST API, and ssh to the node where bytes leave it.
//!
//! [`Proxmox`] is one cluster: a source of VMs and a target for them. All calls go through the [`client`]; a VM's configuration
//! becomes the neutral model in [`config`].

mod addresses;
pub(crate) mod client;
pub(crate) mod config;
mod hypervisor;
mod source;
mod ssh;
mod target;

use std::path::PathBuf;
use std::sync::Arc;

use client::Client;

use crate::Error;
use crate::credentials::Credentials;

/// What it takes to connect to Proxmox VE.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Provider's `spec.endpoint`: `https://host:8006`, `https://host:8006/api2/json`, or a bare host.
    pub endpoint: String,
    /// What lets us in: a token, or user and password; and for a source, what ssh needs.
    pub credentials: Credentials,
    /// Whether certificates go unverified: only where the user says so.
    pub insecure: bool,
    /// The node for new VMs; `None` takes one that is online and has the storages, for each migration another.
    pub node: Option<String>,
    /// The storage for disks where a migration names none.
    pub storage: Option<String>,
    /// The storage with content type `import` for staged images, where it is not the target storage.
    pub import_storage: Option<String>,
    /// Bridge for interfaces that nothing else says a network for.
    pub bridge: Option<String>,
    /// How a node is reached by ssh.
    pub ssh: Ssh,
    /// A folder of this machine that is the NFS staging storage as the nodes see it, where there is such a thing: see `shared`.
    pub shared: Option<Shared>,
}

/// How nodes are reached by ssh: for the bytes of a source's disks, and for targets before 8.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// User name.
    pub user: String,
    /// Port.
    pub port: u16,
    /// Host instead of the node's own address, for a single node behind another name.
    pub host: Option<String>,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            user: "root".to_owned(),
            port: 22,
            host: None,
        }
    }
}

/// A storage of the cluster whose folder is also one of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The storage's name at the cluster.
    pub storage: String,
    /// Its folder here.
    pub path: PathBuf,
}

/// A cluster or a single node. Cheap to clone: clones share connections and ticket.
#[derive(Clone)]
pub struct Proxmox {
    pub(crate) client: Client,
    pub(crate) config: Arc<Config>,
    pub(crate) shells: ssh::Shells,
}

impl Proxmox {
    /// Connects, and checks that the API answers and lets us in.
    ///
    /// # Errors
    /// [`Invalid`](crate::Kind::Invalid) for an endpoint or credentials that make no sense,
    /// [`Untrusted`](crate::Kind::Untrusted) for a certificate that is not trusted, [`Denied`](crate::Kind::Denied) for
    /// credentials that are refused, [`Unreachable`](crate::Kind::Unreachable) for a host that does not answer.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Client::new(&config.endpoint, &config.credentials, config.insecure)?;
        let version = client.version().await?;
        tracing::debug!(endpoint = %client.name(), %version, user = client.user(), "connected to Proxmox VE");
        Ok(Self {
            client,
            config: Arc::new(config),
            shells: ssh::Shells::default(),
        })
    }
}
