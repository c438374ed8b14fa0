//! Deleting the VM after the move.

use std::time::Duration;

use serde_json::Value;

use crate::proxmox::Proxmox;
use crate::proxmox::client::Call;
use crate::proxmox::client::task::{TaskEntry, Upid};
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
    match last_deletion(proxmox, at.vmid).await? {
        // A call before this one did not see its end.
        Some(task) if task.is_running() => {
            let task = Upid::parse(&task.upid)?;
            return proxmox.client.wait(&task, LIMIT, "delete", &object).await.map(drop);
        }
        Some(task) => {
            return Err(Error::new(Kind::Invalid, "delete", object)
                .detail(format!(
                    "a VM of that id was deleted by the same user before ({}): this one was made after that, and may be another's",
                    task.upid
                ))
                .remedy(format!(
                    "where it is the one that was moved, delete it by hand (qm destroy {}); else nothing is left to be deleted: \
                     set deleteSource to false, or delete the migration",
                    at.vmid
                )));
        }
        None => {}
    }
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

/// The task of our own user that deletes a VM of this id, or has deleted one. Ids are given anew, the lowest first: what is there
/// after such a task is another VM, and no id tells whether that is the one that was moved.
async fn last_deletion(proxmox: &Proxmox, vmid: u64) -> Result<Option<TaskEntry>, Error> {
    let mut found: Option<TaskEntry> = None;
    // It may have been on another node then.
    for node in proxmox.client.nodes().await?.iter().filter(|node| node.is_online()) {
        let tasks = proxmox.client.tasks(&node.name, vmid).await?;
        let deletions = tasks
            .into_iter()
            .filter(|task| task.kind == "qmdestroy" && task.failure().is_none() && proxmox.client.is_ours(task));
        found = found.into_iter().chain(deletions).max_by_key(|task| task.starttime);
    }
    Ok(found)
}
