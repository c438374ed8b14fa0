//! Starting and stopping VMs of ours.

use std::time::Duration;

use super::vm;
use crate::proxmox::Proxmox;
use crate::proxmox::client::vm::{Located, parse_vmid};
use crate::proxmox::hypervisor::power;
use crate::{Error, Kind, Owner, PowerState, VmId};

/// How long it may take until a VM runs, or does not any more.
const LIMIT: Duration = Duration::from_mins(3);

/// Starts or stops a VM, and waits until it is so.
pub(super) async fn set(proxmox: &Proxmox, id: &VmId, owner: &Owner, wanted: PowerState) -> Result<(), Error> {
    let object = format!("VM {} on {}", id.0, proxmox.object());
    let vmid = parse_vmid(&id.0, &object)?;
    let node = proxmox.client.node_of(vmid).await?;
    let mut at = Located { vmid, node };
    vm::owned(proxmox, &mut at, owner).await?;
    switch(proxmox, &mut at, wanted).await
}

/// [`set`] for a VM that is known to be ours.
pub(super) async fn switch(proxmox: &Proxmox, at: &mut Located, wanted: PowerState) -> Result<(), Error> {
    if power(&proxmox.client.vm_status(at).await?) == wanted {
        return Ok(());
    }
    let act = match wanted {
        PowerState::On => "start",
        PowerState::Off => "stop",
    };
    let what = format!("VM {} on node {}", at.vmid, at.node);
    let task = proxmox.client.vm_act(at, act).await?;
    let waited = proxmox.client.wait(&task, LIMIT, act, &what).await;
    if power(&proxmox.client.vm_status(at).await?) == wanted {
        return Ok(());
    }
    waited?;
    Err(Error::new(Kind::Failed, act, what)
        .detail("the task is done, and the VM is as before")
        .remedy("see the task's log and the node's journal"))
}
