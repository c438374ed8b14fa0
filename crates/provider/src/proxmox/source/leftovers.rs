//! Ending a frozen state, and removing all that came with it.

use std::time::Duration;

use serde_json::json;

use super::found::{Found, Graph};
use super::state::{Part, RUN, StateId};
use super::{agent, insert};
use crate::proxmox::Proxmox;
use crate::proxmox::client::vm::Located;
use crate::proxmox::hypervisor::power;
use crate::proxmox::ssh::{Qmp, Shell, quote};
use crate::{Error, Kind, PowerState, VmSelector};

/// How long it may take until nobody uses a block node any more.
const END: Duration = Duration::from_secs(15);
/// The pause between two looks at it.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends what was frozen for an owner, and removes what came with it. Nothing to do is success, and so is a VM that is gone.
pub(super) async fn release(proxmox: &Proxmox, selector: &VmSelector, tag: &str) -> Result<(), Error> {
    if !proxmox.may_use_nodes() {
        // Then nothing was ever frozen.
        return Ok(());
    }
    let found = match proxmox.client.look_up(selector).await {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::NotFound => return forsaken(proxmox, selector, tag).await,
        Err(error) => return Err(error),
    };
    let mut at = Located {
        vmid: found.vmid,
        node: found.node,
    };
    // The list of all VMs calls one that is paused so, and says of one whose node is silent that it is unknown. All of them may
    // have a process, with our filters in it.
    let runs = match proxmox.client.vm_status(&mut at).await {
        Err(error) if error.kind() == Kind::NotFound => return forsaken(proxmox, selector, tag).await,
        status => power(&status?) == PowerState::On,
    };
    let object = format!("VM {:?} (VMID {}) on node {}", selector.name, at.vmid, at.node);
    let shell = proxmox.shell(&at.node).await?;
    if runs {
        agent::recover(&shell, at.vmid, &object, tag).await;
        end(&shell, at.vmid, &object, tag).await?;
    }
    sweep(&shell, &object, tag, runs).await?;
    let storages = images(proxmox, &at.node).await?;
    free(&shell, at.vmid, &storages, tag).await?;
    elsewhere(proxmox, &at, tag).await
}

/// The usable storages of a node that hold disks.
async fn images(proxmox: &Proxmox, node: &str) -> Result<Vec<String>, Error> {
    let storages = proxmox.client.storages(node).await?.into_iter();
    let usable = storages.filter(|storage| storage.holds("images") && storage.is_usable());
    Ok(usable.map(|storage| storage.name).collect())
}

/// Those of them that no other node sees.
async fn own_images(proxmox: &Proxmox, node: &str) -> Result<Vec<String>, Error> {
    let storages = proxmox.client.storages(node).await?.into_iter();
    let own = storages.filter(|storage| !storage.shared && storage.holds("images") && storage.is_usable());
    Ok(own.map(|storage| storage.name).collect())
}

/// The VM is gone, and its filters with it. Its volumes may be there, on any node.
async fn forsaken(proxmox: &Proxmox, selector: &VmSelector, tag: &str) -> Result<(), Error> {
    let vmid = selector.id.as_deref().and_then(|id| id.parse::<u64>().ok());
    for node in others(proxmox, "", vmid.is_some()).await? {
        let Some(shell) = shell(proxmox, &node).await? else {
            continue;
        };
        sweep(&shell, &format!("node {node}"), tag, false).await?;
        if let Some(vmid) = vmid {
            free(&shell, vmid, &images(proxmox, &node).await?, tag).await?;
        }
    }
    Ok(())
}

/// The nodes of the cluster that are up, but for one.
///
/// # Errors
/// [`Kind::Unreachable`] where there may be volumes, and a node is down that may have some which no other node sees.
async fn others(proxmox: &Proxmox, here: &str, volumes: bool) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut configured = None;
    for node in proxmox.client.nodes().await? {
        if node.name == here {
            continue;
        }
        if node.is_online() {
            names.push(node.name);
            continue;
        }
        // Nobody logs in to another node than that host.
        if !volumes || proxmox.config.ssh.host.is_some() {
            continue;
        }
        let storages = match configured.take() {
            Some(storages) => storages,
            None => proxmox.client.configured_storages().await?,
        };
        if let Some(storage) = storages.iter().find(|storage| storage.is_of_one_node(&node.name)) {
            return Err(Error::new(Kind::Unreachable, "tidy up", format!("node {}", node.name))
                .detail(format!(
                    "it is down, and storage {} there may have what a guest overwrote before the VM moved away",
                    storage.name
                ))
                .remedy("start the node, or take it out of the cluster (pvecm delnode) where it does not come back"));
        }
        configured = Some(storages);
    }
    Ok(names)
}

/// The shell of a node; `None` where the Provider names one host for ssh, and that is another node.
async fn shell(proxmox: &Proxmox, node: &str) -> Result<Option<Shell>, Error> {
    match proxmox.shell(node).await {
        Err(error) if error.kind() == Kind::Invalid && proxmox.config.ssh.host.is_some() => Ok(None),
        shell => shell.map(Some),
    }
}

/// What a VM that has moved left on other nodes: volumes, of which a move takes along only those that its configuration names;
/// sockets, and servers whose connection nobody saw end.
async fn elsewhere(proxmox: &Proxmox, at: &Located, tag: &str) -> Result<(), Error> {
    for node in others(proxmox, &at.node, true).await? {
        let shell = match proxmox.shell(&node).await {
            // A node that does not let us in did not do so before.
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Untrusted | Kind::Invalid) => {
                tracing::warn!(%error, "another node was not looked at for what a VM left there");
                continue;
            }
            shell => shell?,
        };
        sweep(&shell, &format!("node {node}"), tag, false).await?;
        free(&shell, at.vmid, &own_images(proxmox, &node).await?, tag).await?;
    }
    Ok(())
}

/// Ends the owner's exports in a VM that runs, and takes its filters out.
pub(super) async fn end(shell: &Shell, vmid: u64, object: &str, tag: &str) -> Result<(), Error> {
    let mut monitor = match shell.monitor(vmid, object).await {
        Ok(monitor) => monitor,
        // It was stopped meanwhile, and all of that ended with it.
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
    for access in found.nodes_of(Part::Access, tag) {
        delete_node(&mut monitor, &access, object).await?;
    }
    for filter in found.nodes_of(Part::Filter, tag) {
        take_out(&mut monitor, &filter).await?;
        delete_node(&mut monitor, &filter, object).await?;
    }
    for changes in found.nodes_of(Part::Changes, tag) {
        delete_node(&mut monitor, &changes, object).await?;
    }
    Ok(())
}

/// Gives the devices that are on a filter what is below it.
async fn take_out(monitor: &mut Qmp, filter: &str) -> Result<(), Error> {
    let drives = Found::read(monitor).await?.drives_on(filter);
    if drives.is_empty() {
        return Ok(());
    }
    let graph = Graph::read(monitor).await?;
    let below = graph.below(filter).ok_or_else(|| {
        let detail = "QEMU does not say what is below it";
        Error::new(Kind::Failed, "take out", format!("the filter {filter}")).detail(detail)
    })?;
    for drive in drives {
        insert::replace(monitor, &drive.device, below).await?;
    }
    Ok(())
}

/// Deletes a block node as soon as nobody uses it.
async fn delete_node(monitor: &mut Qmp, node: &str, object: &str) -> Result<(), Error> {
    let start = tokio::time::Instant::now();
    loop {
        match absent_is_fine(monitor.call("blockdev-del", json!({"node-name": node})).await) {
            Err(error) if error.kind() == Kind::Busy && start.elapsed() < END => {}
            Err(error) if error.kind() == Kind::Busy => {
                return Err(Error::new(Kind::Busy, "end the frozen state of", object)
                    .source(error)
                    .remedy("wait until the backup, or whatever else reads the VM's disks, has ended"));
            }
            done => return done,
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

/// Ends the owner's servers on a node, and removes its sockets and marks; but for marks of a guest that runs, which its
/// watchdogs heed for an hour and more.
async fn sweep(shell: &Shell, object: &str, tag: &str, runs: bool) -> Result<(), Error> {
    let prefix = format!("{RUN}/{}", StateId::prefix(tag));
    let old = if runs { "-mmin +120" } else { "" };
    let marks = [agent::FROZEN, agent::PAUSED].map(|ending| {
        let name = StateId::prefix(tag);
        format!("find {RUN}/ -maxdepth 1 -name '{name}*.{ending}' {old} -delete\n")
    });
    // A process id may be another's by now: it must be a server at that very socket.
    let script = format!(
        "for file in {prefix}*.pid; do [ -e \"$file\" ] || continue\n\
         read -r pid <\"$file\" || continue\n\
         if tr '\\0' ' ' <\"/proc/$pid/cmdline\" 2>/dev/null | grep -qF -- \"${{file%.pid}}.sock\"; then kill \"$pid\"; fi\n\
         done\n\
         rm -f -- {prefix}*.pid {prefix}*.sock\n{}",
        marks.concat()
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
