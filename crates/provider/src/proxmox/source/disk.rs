//! A disk of a frozen state, read over NBD through the ssh session of its node.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use vmferry_block::{AllocationMap, Buf};
use vmferry_nbd::{Client, Error as NbdError};

use super::Guest;
use super::{offline, running};
use crate::proxmox::Proxmox;
use crate::proxmox::ssh::{Running, Shell};
use crate::{DiskSource, Error, FrozenId, Kind, Vm};

/// How often a server that was just started is knocked at.
const KNOCKS: u32 = 20;
/// The pause between two knocks.
const PAUSE: Duration = Duration::from_millis(100);

/// A disk of a frozen state.
pub(super) struct Disk {
    pub proxmox: Proxmox,
    pub vm: Vm,
    pub frozen: FrozenId,
    /// Its name.
    pub name: String,
    pub capacity: u64,
    pub object: String,
    /// Where it is served.
    pub shell: Shell,
    pub socket: String,
    /// What serves it while this lives; `None` where the VM itself does.
    pub script: Option<String>,
    pub connection: OnceCell<Connection>,
}

/// What the first read takes hold of.
pub(super) struct Connection {
    client: Client,
    /// Ends the server when it is dropped.
    _server: Option<Running>,
}

impl Disk {
    /// The connection, made at the first read.
    async fn client(&self) -> Result<&Client, Error> {
        let connection = self.connection.get_or_try_init(|| self.connect()).await;
        Ok(&connection?.client)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let server = match &self.script {
            Some(script) => Some(self.shell.start(script, "serve", &self.object).await?),
            None => None,
        };
        let mut knocks = 0;
        let stream = loop {
            match self.shell.open_unix(&self.socket).await {
                Err(error) if error.kind() == Kind::Unreachable && server.is_some() && knocks < KNOCKS => knocks += 1,
                opened => break opened?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        let client = Client::connect(stream, &self.name).await;
        let client = client.map_err(|error| fault("open", &self.object, error))?;
        if client.size() != self.capacity {
            return Err(gone(&self.object, &self.frozen, "the disk's size has changed"));
        }
        Ok(Connection {
            client,
            _server: server,
        })
    }

    /// Whether the state is still the one that was opened.
    async fn holds(&self) -> Result<(), Error> {
        let guest = match Guest::read(&self.proxmox, &self.vm).await {
            Ok(guest) => guest,
            Err(error) if error.kind() == Kind::NotFound => {
                return Err(gone(&self.object, &self.frozen, "the VM is gone"));
            }
            Err(error) => return Err(error),
        };
        if guest.at.node != self.shell.node() {
            let why = format!("the VM has moved to node {}", guest.at.node);
            return Err(gone(&self.object, &self.frozen, &why));
        }
        if self.frozen.is_offline() {
            offline::compare(&self.proxmox, &guest, &self.frozen).await
        } else {
            running::compare(&self.proxmox, &guest, &self.frozen).await.map(drop)
        }
    }

    /// The reason behind a failure: a state that is gone explains it better than a connection that broke.
    async fn explain(&self, error: Error) -> Error {
        if error.kind() == Kind::FrozenStateGone {
            return error;
        }
        match self.holds().await {
            Err(reason) if reason.kind() == Kind::FrozenStateGone => reason,
            _ => error,
        }
    }
}

#[async_trait]
impl DiskSource for Disk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        let mapped = match self.client().await {
            Ok(client) => client
                .allocation()
                .await
                .map_err(|error| fault("map", &self.object, error)),
            Err(error) => Err(error),
        };
        match mapped {
            Ok(map) => Ok(map),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let read = match self.client().await {
            Ok(client) => client
                .read(offset, buf)
                .await
                .map_err(|error| fault("read", &self.object, error)),
            Err(error) => Err(error),
        };
        match read {
            Ok(buf) => Ok(buf),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn finish(&self) -> Result<(), Error> {
        self.holds().await
    }
}

/// The fault for a frozen state that does not hold any more.
pub(super) fn gone(object: &str, frozen: &FrozenId, why: &str) -> Error {
    let object = format!("the frozen state {} of {object}", frozen.0);
    Error::new(Kind::FrozenStateGone, "read", object).detail(why)
}

pub(super) fn fault(action: &'static str, object: &str, error: NbdError) -> Error {
    let kind = match &error {
        NbdError::Io(_) | NbdError::Closed | NbdError::Timeout(_) => Kind::Unreachable,
        NbdError::OutOfRange { .. } => Kind::Bug,
        _ => Kind::Failed,
    };
    Error::new(kind, action, object).source(error)
}
