//! Ending a frozen state, and removing all that came with it.

use std::time::Duration;

use serde_json::json;

use super::found::Found;
use super::state::{RUN, StateId};
use crate::proxmox::Proxmox;
use crate::proxmox::client::vm::Located;
use crate::proxmox::ssh::{Qmp, Shell, quote};
use crate::{Error, Kind, VmSelector};

/// How long jobs may take to end.
const END: Duration = Duration::from_secs(30);
/// The pause between two looks at them.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends what was frozen for an owner, and removes what came with it. Nothing to do is success, and so is a VM that is gone.
pub(super) async fn release(proxmox: &Proxmox, selector: &VmSelector, tag: &str) -> Result<(), Error> {
    if !proxmox.has_ssh() {
        // Then nothing was ever frozen.
        return Ok(());
    }
    let found = match proxmox.client.look_up(selector).await {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::NotFound => return forsaken(proxmox, selector, tag).await,
        Err(error) => return Err(error),
    };
    let at = Located {
        vmid: found.vmid,
        node: found.node,
    };
    let object = format!("VM {:?} (VMID {}) on node {}", selector.name, at.vmid, at.node);
    let shell = proxmox.shell(&at.node).await?;
    if found.status.as_deref() == Some("running") {
        end(&shell, at.vmid, &object, tag).await?;
    }
    sweep(&shell, &object, tag).await?;
    let storages = images(proxmox, &at.node).await?;
    free(&shell, at.vmid, &storages, tag).await?;
    elsewhere(proxmox, &at.node, tag).await;
    Ok(())
}

/// The usable storages of a node that hold disks.
async fn images(proxmox: &Proxmox, node: &str) -> Result<Vec<String>, Error> {
    let storages = proxmox.client.storages(node).await?.into_iter();
    let usable = storages.filter(|storage| storage.holds("images") && storage.is_usable());
    Ok(usable.map(|storage| storage.name).collect())
}

/// The VM is gone, and its jobs with it. Its volumes may be there, on any node.
async fn forsaken(proxmox: &Proxmox, selector: &VmSelector, tag: &str) -> Result<(), Error> {
    let vmid = selector.id.as_deref().and_then(|id| id.parse::<u64>().ok());
    for node in proxmox
        .client
        .nodes()
        .await?
        .into_iter()
        .filter(super::super::client::types::Node::is_online)
    {
        let shell = proxmox.shell(&node.name).await?;
        sweep(&shell, &format!("node {}", node.name), tag).await?;
        if let Some(vmid) = vmid {
            free(&shell, vmid, &images(proxmox, &node.name).await?, tag).await?;
        }
    }
    Ok(())
}

/// What a VM that has moved may have left on other nodes: sockets, and servers whose connection nobody saw end. They stand in nobody's
/// way, so that a node that cannot be reached is no failure.
async fn elsewhere(proxmox: &Proxmox, here: &str, tag: &str) {
    let nodes = proxmox.client.nodes().await.unwrap_or_default();
    for node in nodes.into_iter().filter(|node| node.is_online() && node.name != here) {
        let swept = async { sweep(&proxmox.shell(&node.name).await?, &format!("node {}", node.name), tag).await };
        if let Err(error) = swept.await {
            tracing::debug!(%error, "another node was not looked at");
        }
    }
}

/// Ends the owner's jobs and exports in a VM that runs.
pub(super) async fn end(shell: &Shell, vmid: u64, object: &str, tag: &str) -> Result<(), Error> {
    let mut monitor = match shell.monitor(vmid, object).await {
        Ok(monitor) => monitor,
        // It was stopped meanwhile, and its jobs ended with it.
        Err(error) if error.kind() == Kind::Unreachable && !has_monitor(shell, vmid, object).await? => return Ok(()),
        Err(error) => return Err(error),
    };
    let found = Found::read(&mut monitor).await?;
    let prefix = StateId::prefix(tag);
    let ours: Vec<_> = found
        .exports
        .iter()
        .filter(|export| export.id.starts_with(&prefix))
        .collect();
    for export in &ours {
        let deleted = monitor
            .call("block-export-del", json!({"id": export.id, "mode": "hard"}))
            .await;
        absent_is_fine(deleted)?;
    }
    let others = found.exports.len() - ours.len();
    let socket = format!("ls -d {RUN}/{prefix}*.sock 2>/dev/null || true");
    let has_server = !shell
        .run(&socket, "look for the sockets of", object)
        .await?
        .trim()
        .is_empty();
    if others == 0 && has_server {
        // QEMU has one server: without our socket it would be another's.
        let stopped = monitor.call("nbd-server-stop", json!({})).await;
        absent_is_fine(stopped)?;
    }
    for job in found.jobs.iter().filter(|job| job.id.starts_with(&prefix)) {
        absent_is_fine(
            monitor
                .call("block-job-cancel", json!({"device": job.id, "force": true}))
                .await,
        )?;
    }
    wait_for_jobs(&mut monitor, &prefix, object).await?;
    let nodes = StateId::node_prefix(tag);
    for node in found.nodes.iter().filter(|node| node.starts_with(&nodes)) {
        absent_is_fine(monitor.call("blockdev-del", json!({"node-name": node})).await)?;
    }
    Ok(())
}

async fn wait_for_jobs(monitor: &mut Qmp, prefix: &str, object: &str) -> Result<(), Error> {
    let start = tokio::time::Instant::now();
    loop {
        let found = Found::read(monitor).await?;
        if !found.jobs.iter().any(|job| job.id.starts_with(prefix)) {
            return Ok(());
        }
        if start.elapsed() > END {
            let detail = format!("the jobs are still there after {} s", END.as_secs());
            return Err(Error::new(Kind::Busy, "end the backup jobs of", object).detail(detail));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn has_monitor(shell: &Shell, vmid: u64, object: &str) -> Result<bool, Error> {
    let script = format!("if [ -S {RUN}/{vmid}.qmp ]; then echo yes; fi");
    Ok(shell.run(&script, "look at", object).await?.contains("yes"))
}

/// What somebody else has ended meanwhile is ended.
fn absent_is_fine(done: Result<serde_json::Value, Error>) -> Result<(), Error> {
    match done {
        Err(error) => {
            let text = error.to_string();
            let is_absent = [
                "not found",
                "does not exist",
                "not running",
                "Failed to find",
                "No such",
            ];
            if is_absent.iter().any(|part| text.contains(part)) {
                return Ok(());
            }
            Err(error)
        }
        Ok(_) => Ok(()),
    }
}

/// Ends the owner's servers on a node, and removes its sockets and marks.
async fn sweep(shell: &Shell, object: &str, tag: &str) -> Result<(), Error> {
    let prefix = format!("{RUN}/{}", StateId::prefix(tag));
    // A process id may be another's by now: it must be a server at that very socket.
    let script = format!(
        "for file in {prefix}*.pid; do [ -e \"$file\" ] || continue\n\
         read -r pid <\"$file\" || continue\n\
         if tr '\\0' ' ' <\"/proc/$pid/cmdline\" 2>/dev/null | grep -qF -- \"${{file%.pid}}.sock\"; then kill \"$pid\"; fi\n\
         done\n\
         rm -f -- {prefix}*.pid {prefix}*.sock {prefix}*.thaw\n"
    );
    shell.run(&script, "tidy up after", object).await.map(drop)
}

/// Frees the owner's volumes of a VM.
pub(super) async fn free(shell: &Shell, vmid: u64, storages: &[String], tag: &str) -> Result<(), Error> {
    let object = format!("the volumes for changes of VM {vmid}");
    let name = format!("vm-{vmid}-{}", StateId::prefix(tag));
    for storage in storages {
        let list = format!("pvesm list {} --vmid {vmid}", quote(storage));
        let listed = shell.run(&list, "list", &object).await?;
        let volumes = listed.lines().filter_map(|line| line.split_whitespace().next());
        for volume in volumes.filter(|volume| is_ours(volume, &name)) {
            match shell
                .run(&format!("pvesm free {}", quote(volume)), "free", volume)
                .await
            {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// `local:100/vm-100-vmferry-…`, `local-lvm:vm-100-vmferry-…`.
fn is_ours(volume: &str, name: &str) -> bool {
    let last = volume.rsplit([':', '/']).next().unwrap_or_default();
    last.starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_volumes_are_ours() {
        let name = "vm-100-vmferry-0123456789ab-";
        assert!(is_ours(
            "local:100/vm-100-vmferry-0123456789ab-123456-scsi0.qcow2",
            name
        ));
        assert!(is_ours("thin:vm-100-vmferry-0123456789ab-123456-scsi0", name));
        for other in [
            "local:100/vm-100-disk-0.qcow2",
            "thin:vm-100-vmferry-ffffffffffff-1-scsi0",
            "x",
            "",
        ] {
            assert!(!is_ours(other, name), "{other}");
        }
    }
}
