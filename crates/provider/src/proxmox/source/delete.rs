//! Deleting the VM after the move.

use std::time::Duration;

use serde_json::Value;

use crate::proxmox::Proxmox;
use crate::proxmox::client::Call;
use crate::proxmox::client::task::Upid;
use crate::proxmox::client::vm::Located;
use crate::{Error, Kind, PowerState, VmSelector};

/// How long stopping and deleting may take each.
const LIMIT: Duration = Duration::from_mins(5);

/// Stops the VM and deletes it with the disks that its configuration names: what else has its id may be another's. Gone is success.
pub(super) async fn delete(proxmox: &Proxmox, selector: &VmSelector) -> Result<(), Error> {
    let (vm, mut at, _) = match proxmox.read_vm(selector).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        read => read?,
    };
    let object = format!("VM {:?} (VMID {}) on node {}", vm.name, at.vmid, at.node);
    if vm.power == PowerState::On {
        let task = proxmox.client.vm_act(&mut at, "stop").await?;
        proxmox.client.wait(&task, LIMIT, "stop", &object).await?;
    }
    let call = |at: &Located| {
        let id = at.vmid.to_string();
        Call::delete(&["nodes", &at.node, "qemu", &id], "delete", &object).with("purge", 1)
    };
    let answer: Value = match proxmox.client.send_at(&mut at, call).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    let task = Upid::parse(answer.as_str().unwrap_or_default())?;
    proxmox.client.wait(&task, LIMIT, "delete", &object).await.map(drop)
}
