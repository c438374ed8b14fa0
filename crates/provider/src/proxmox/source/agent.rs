//! Quiescing the guest's file systems through its agent.
//!
//! A guest that stays frozen is worse than a state that is only crash-consistent. So it is thawed when the hold on it is let go, when
//! whoever holds it is cancelled, and, where this process dies meanwhile, by the node itself: a watchdog there is set before the guest is
//! frozen, and called off when it was thawed.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::state::{RUN, StateId};
use super::{Guest, watchdog};
use crate::proxmox::Proxmox;
use crate::proxmox::client::Call;
use crate::proxmox::client::vm::Located;
use crate::proxmox::ssh::Shell;
use crate::{Error, Kind};

/// How long the guest may take to freeze its file systems.
const FREEZE: Duration = Duration::from_secs(10);
/// How long a thaw is waited for.
const THAW: Duration = Duration::from_secs(10);
/// After how many seconds the node thaws by itself, counted from before the freeze: what that may take, and then ten.
const WATCHDOG: u32 = 20;

/// What the name of the mark ends in of a guest that is frozen, and of one that is paused.
pub(super) const FROZEN: &str = "thaw";
pub(super) const PAUSED: &str = "cont";

/// How a node thaws a guest.
fn thaw(vmid: u64) -> String {
    format!("qm guest cmd {vmid} fsfreeze-thaw")
}

/// How a node lets a guest go on that is paused, whatever holds its lock.
pub(super) fn resume(vmid: u64) -> String {
    format!("qm resume {vmid} --skiplock 1")
}

/// A guest that stands still, or not. It is thawed when this is dropped.
pub(super) struct Hold {
    /// What is thawed; `None` where nothing stands still.
    frozen: Option<Frozen>,
    detail: String,
}

#[derive(Clone)]
struct Frozen {
    proxmox: Proxmox,
    at: Located,
    shell: Shell,
    mark: String,
}

/// Freezes the guest's file systems, or says why they do not stand still.
pub(super) async fn freeze(proxmox: &Proxmox, guest: &Guest, shell: &Shell, id: &StateId) -> Hold {
    let not = |why: String| Hold {
        frozen: None,
        detail: format!("crash-consistent: {why}"),
    };
    if !guest.config.hardware.guest_agent {
        return not("the VM has no guest agent".to_owned());
    }
    let frozen = Frozen {
        proxmox: proxmox.clone(),
        at: guest.at.clone(),
        shell: shell.clone(),
        mark: format!("{RUN}/{id}.{FROZEN}"),
    };
    match timeout(FREEZE, frozen.ask("fsfreeze-status"))
        .await
        .unwrap_or_else(|_| Err(silent(guest)))
    {
        // Whoever froze it relies on it.
        Ok(answer) if answer["result"] == "frozen" => {
            return not("another holds the guest's file systems frozen".to_owned());
        }
        Ok(_) => {}
        Err(error) => return not(format!("the guest agent does not answer ({error})")),
    }
    if let Err(error) = frozen.watch(&guest.object).await {
        return not(format!("the node cannot watch over the guest ({error})"));
    }
    // From here on it is thawed whatever happens, since a request without an answer may be granted later.
    let mut hold = Hold {
        frozen: Some(frozen.clone()),
        detail: String::new(),
    };
    match timeout(FREEZE, frozen.ask("fsfreeze-freeze"))
        .await
        .unwrap_or_else(|_| Err(silent(guest)))
    {
        Ok(answer) => {
            let count = answer["result"].as_u64().unwrap_or(0);
            hold.detail = match count {
                0 => "crash-consistent: the guest agent knows no file system that can be frozen".to_owned(),
                1 => "1 file system frozen by the guest agent".to_owned(),
                count => format!("{count} file systems frozen by the guest agent"),
            };
            hold
        }
        Err(error) => {
            hold.end().await;
            not(format!("the guest agent does not freeze its file systems ({error})"))
        }
    }
}

fn silent(guest: &Guest) -> Error {
    let detail = format!("no answer within {} s", FREEZE.as_secs());
    Error::new(Kind::Busy, "ask the guest agent of", &guest.object).detail(detail)
}

impl Frozen {
    async fn ask(&self, command: &'static str) -> Result<Value, Error> {
        let mut at = self.at.clone();
        let call = |at: &Located| {
            let id = at.vmid.to_string();
            let object = format!("the guest agent of VM {id} on node {}", at.node);
            Call::post(&["nodes", &at.node, "qemu", &id, "agent", command], "command", object)
        };
        self.proxmox.client.send_at(&mut at, call).await
    }

    /// Has the node thaw the guest after a while, unless it was thawed by then.
    async fn watch(&self, object: &str) -> Result<(), Error> {
        watchdog::set(&self.shell, &self.mark, WATCHDOG, &thaw(self.at.vmid), object).await
    }

    /// Thaws, and calls the watchdog off.
    async fn thaw(&self) -> Result<(), Error> {
        let thawed = timeout(THAW, self.ask("fsfreeze-thaw")).await;
        thawed.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", THAW.as_secs());
            Err(Error::new(Kind::Busy, "thaw", format!("VM {}", self.at.vmid)).detail(detail))
        })?;
        watchdog::call_off(&self.shell, &self.mark, &format!("VM {}", self.at.vmid)).await
    }
}

impl Hold {
    /// Thaws the guest, and says how it stood.
    pub async fn end(mut self) -> String {
        if let Some(frozen) = &self.frozen {
            match frozen.thaw().await {
                Ok(()) => self.frozen = None,
                // The drop tries once more; the watchdog is there, too.
                Err(error) => tracing::warn!(%error, "the guest does not thaw; it is asked on"),
            }
        }
        std::mem::take(&mut self.detail)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            tokio::spawn(async move {
                for seconds in [0, 1, 2, 4] {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    if frozen.thaw().await.is_ok() {
                        return;
                    }
                }
                tracing::warn!(vmid = frozen.at.vmid, "the guest's file systems may still be frozen");
            });
        }
    }
}

/// Lets a guest go on that a process of this owner froze, or paused, and did not let go on.
pub(super) async fn recover(shell: &Shell, vmid: u64, object: &str, tag: &str) {
    let pattern = format!("{RUN}/{}", StateId::prefix(tag));
    let each = |ending: &str, command: &str| {
        format!(
            "for mark in {pattern}*.{ending}; do [ -e \"$mark\" ] || continue\n\
             {command} >/dev/null && rm -f -- \"$mark\" && echo done\ndone\n"
        )
    };
    let script = each(PAUSED, &resume(vmid)) + &each(FROZEN, &thaw(vmid));
    match shell.run(&script, "thaw", object).await {
        Ok(said) if said.contains("done") => {
            tracing::info!(vm = object, "the guest was left standing still, and goes on now");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the guest may still be frozen"),
    }
}
