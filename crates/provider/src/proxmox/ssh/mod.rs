//! The nodes' shells: what `pvesm`, `qemu-img`, `qemu-nbd` and QEMU's monitor do there.
//!
//! Architecture Invariant: every word that comes from outside goes through [`quote`] before a shell sees it.

mod qmp;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

pub(in crate::proxmox) use crate::ssh::{Feed, Running, UnixChannel, quote};
pub(in crate::proxmox) use qmp::Qmp;

use super::Proxmox;
use super::client::kind_of_text;
use crate::ssh::{Session, Target};
use crate::{Error, Kind};

/// How long a command may take that looks something up or makes a volume.
const COMMAND: Duration = Duration::from_mins(1);

/// The sessions of a cluster's nodes, by address. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Shells(Arc<Mutex<HashMap<String, Login>>>);

struct Login {
    /// What the node calls itself.
    name: String,
    session: Arc<Session>,
}

/// A node's shell.
#[derive(Clone)]
pub(in crate::proxmox) struct Shell {
    node: String,
    session: Arc<Session>,
}

impl Proxmox {
    /// Whether what there is to log in with was given for a node: a key, or root's own password. That of another user of the API
    /// lets nobody in.
    pub(in crate::proxmox) fn may_use_nodes(&self) -> bool {
        let credentials = &self.config.credentials;
        let is_roots = credentials.token_id.is_some() || credentials.username.as_deref() == Some("root@pam");
        credentials.ssh_private_key.is_some() || (credentials.password.is_some() && is_roots)
    }

    /// The shell of a node.
    pub(in crate::proxmox) async fn shell(&self, node: &str) -> Result<Shell, Error> {
        let host = match &self.config.ssh.host {
            Some(host) => host.clone(),
            None => self.node_address(node).await?,
        };
        let mut sessions = self.shells.0.lock().await;
        if let Some(Login { name, session }) = sessions.get(&host)
            && session.is_alive()
        {
            self.same_node(node, name, &host)?;
            return Ok(Shell {
                node: node.to_owned(),
                session: Arc::clone(session),
            });
        }
        let target = Target {
            user: self.config.ssh.user.clone(),
            host: host.clone(),
            port: self.config.ssh.port,
            said_by: "the node for ssh",
        };
        let session = Arc::new(Session::connect(&target, &self.config.credentials).await?);
        let name = own_name(&session, &host).await?;
        let same = self.same_node(node, &name, &host);
        let login = Login {
            name,
            session: Arc::clone(&session),
        };
        sessions.insert(host, login);
        same?;
        Ok(Shell {
            node: node.to_owned(),
            session,
        })
    }

    /// Refuses the shell of another node: its volumes and VMs may have the names of those that are meant.
    fn same_node(&self, node: &str, found: &str, host: &str) -> Result<(), Error> {
        if found.eq_ignore_ascii_case(node) {
            return Ok(());
        }
        let error = Error::new(Kind::Invalid, "log in to", format!("node {node}"))
            .detail(format!("{host} was reached, and it is node {found}, not {node}"));
        Err(if self.config.ssh.host.is_some() {
            error.remedy(
                "take the host for ssh out of the Provider, so that each node is reached at the address that the cluster has for \
                 it; or move the VM to the node of that host",
            )
        } else {
            error.remedy("see that the cluster knows the node by its own address (pvecm status), and that the address has no other host")
        })
    }

    /// The address of a node as the cluster knows it; a single node is where its API is.
    async fn node_address(&self, node: &str) -> Result<String, Error> {
        let told = match self.client.cluster_status().await {
            Ok(entries) => {
                let nodes: Vec<_> = entries.into_iter().filter(|entry| entry.kind == "node").collect();
                let alone = nodes.len() == 1;
                let found = nodes.into_iter().find(|entry| entry.name == node);
                found.and_then(|entry| if alone { None } else { entry.ip })
            }
            Err(error) if error.kind() == Kind::Denied => None,
            Err(error) => return Err(error),
        };
        if let Some(address) = told {
            return Ok(address);
        }
        if self.client.nodes().await?.len() == 1 {
            return Ok(self.client.host().to_owned());
        }
        Err(Error::new(Kind::Denied, "find the address of", format!("node {node}"))
            .detail("the cluster's state does not tell it")
            .remedy("give the token or user Sys.Audit on /, or set the host for ssh of the Provider"))
    }
}

impl Shell {
    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What a script says.
    pub async fn run(&self, script: &str, action: &'static str, object: &str) -> Result<String, Error> {
        self.session
            .run(&wrap(script), COMMAND, action, object, kind_of_text)
            .await
    }

    /// Starts a script that says `ready` and goes on until its input ends.
    pub async fn start(&self, script: &str, action: &'static str, object: &str) -> Result<Running, Error> {
        self.session
            .start(&wrap(script), COMMAND, action, object, kind_of_text)
            .await
    }

    /// Starts a script that says `ready` and then reads its input to the end.
    pub async fn feed(&self, script: &str, action: &'static str, object: &str) -> Result<Feed, Error> {
        self.session
            .feed(&wrap(script), COMMAND, action, object, kind_of_text)
            .await
    }

    /// A byte stream to a unix socket of the node.
    pub async fn open_unix(&self, path: &str) -> Result<UnixChannel, Error> {
        self.session.open_unix(path).await
    }

    /// The monitor of a VM that runs on the node.
    pub async fn monitor(&self, vmid: u64, object: &str) -> Result<Qmp, Error> {
        let path = format!("/var/run/qemu-server/{vmid}.qmp");
        Qmp::connect(self.open_unix(&path).await?, object).await
    }
}

/// What a node calls itself: the name of its host, up to the first dot, is its name in the cluster.
async fn own_name(session: &Session, host: &str) -> Result<String, Error> {
    let object = format!("the name of node {host}");
    let said = session
        .run(&wrap("uname -n"), COMMAND, "ask for", &object, kind_of_text)
        .await?;
    Ok(said.trim().split('.').next().unwrap_or_default().to_owned())
}

/// A script for whatever shell the user has.
fn wrap(script: &str) -> String {
    format!("exec sh -c {}", quote(script))
}
