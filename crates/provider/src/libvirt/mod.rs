//! libvirt/KVM, through the libvirt API.
//!
//! [`Libvirt`] is one host: a source of VMs ([`source`]) and a target for them. Whatever the way to it (a local socket, TCP,
//! TLS, ssh), libvirt's own connection does all the work; only the bytes of a running VM's disks come over NBD.
//!
//! Architecture Invariant: a URI from a manifest never runs a command. ssh is spoken by this process ([`ssh`]), and what
//! [`conn::Endpoint`] does not know is refused.

mod addresses;
mod conn;
mod hypervisor;
mod local;
mod source;
mod ssh;
mod target;
mod volume;
mod xml;

use std::path::PathBuf;
use std::sync::Arc;

use conn::Handle;

use crate::Error;
use crate::credentials::Credentials;

/// What it takes to connect to a libvirt host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Provider's `spec.endpoint`: a libvirt URI.
    pub endpoint: String,
    /// What lets us in.
    pub credentials: Credentials,
    /// A directory of ours for sockets that live as long as it takes to connect. It must exist or be creatable.
    pub runtime_dir: PathBuf,
    /// The storage pool for volumes when a migration names none; `default` where this is `None` too.
    pub default_storage: Option<String>,
}

/// A libvirt host. Cheap to clone: clones share one connection, which is made anew when it broke.
#[derive(Clone)]
pub struct Libvirt {
    handle: Handle,
    default_storage: Arc<str>,
}

impl Libvirt {
    /// Connects to a host, and checks that it answers and lets us in.
    ///
    /// # Errors
    /// [`Invalid`](crate::Kind::Invalid) for an endpoint that is not one of the forms that [`conn::Endpoint`] knows,
    /// [`Untrusted`](crate::Kind::Untrusted) for a host key that is not known, [`Denied`](crate::Kind::Denied) for wrong
    /// credentials, [`Unreachable`](crate::Kind::Unreachable) for a host that does not answer.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let default_storage = config.default_storage.as_deref().unwrap_or("default").into();
        let handle = Handle::connect(&config).await?;
        Ok(Self {
            handle,
            default_storage,
        })
    }
}
