//! The frozen state of a running VM: a backup job for each disk, all begun at one instant, whose targets are served over NBD.
//!
//! What the guest overwrites from then on is first copied to a volume beside the disk (QEMU's image fleecing). The state lives in the
//! VM's own process and ends with it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::disk::{Disk, gone};
use super::found::{Found, LiveDrive};
use super::state::StateId;
use super::{Guest, agent, leftovers};
use crate::proxmox::Proxmox;
use crate::proxmox::ssh::{Qmp, Shell, quote};
use crate::{Error, Frozen, FrozenId, Kind};

/// How long the guest may stand still for the jobs to begin.
const BEGIN: Duration = Duration::from_secs(8);

/// A disk of a state to be.
struct Part {
    disk: String,
    live: LiveDrive,
    /// Volume and path for what the guest overwrites.
    path: String,
}

fn names(guest: &Guest) -> Vec<&str> {
    guest.config.disks.iter().map(|drive| drive.option.as_str()).collect()
}

fn held(id: &StateId) -> Frozen {
    Frozen {
        detail: format!("backup jobs {id} still hold"),
        id: FrozenId(id.to_string()),
    }
}

/// The state that holds, with all of the VM's disks in it.
pub(super) async fn frozen(proxmox: &Proxmox, guest: &Guest, tag: &str) -> Result<Option<Frozen>, Error> {
    agent::recover(proxmox, guest, tag).await;
    let shell = proxmox.shell(&guest.at.node).await?;
    let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
    let found = Found::read(&mut monitor).await?;
    Ok(found.state(tag, &names(guest)).as_ref().map(held))
}

/// Freezes the disks, or finds the state that holds.
pub(super) async fn freeze(proxmox: &Proxmox, guest: &Guest, tag: &str) -> Result<Frozen, Error> {
    if let Some(frozen) = frozen(proxmox, guest, tag).await? {
        return Ok(frozen);
    }
    let shell = proxmox.shell(&guest.at.node).await?;
    // Half of one, from a process that ended.
    leftovers::end(&shell, guest.at.vmid, &guest.object, tag).await?;
    leftovers::free(&shell, guest.at.vmid, &storages(guest), tag).await?;
    let id = StateId::new(tag);
    match make(proxmox, guest, &shell, &id).await {
        Ok(quiesced) => Ok(Frozen {
            detail: format!("backup jobs {id}, {quiesced}"),
            id: FrozenId(id.to_string()),
        }),
        Err(error) => {
            let cleaned = async {
                leftovers::end(&shell, guest.at.vmid, &guest.object, tag).await?;
                leftovers::free(&shell, guest.at.vmid, &storages(guest), tag).await
            };
            if let Err(left) = cleaned.await {
                tracing::warn!(error = %left, "what was begun is still there; it is removed at the release");
            }
            Err(error)
        }
    }
}

/// The storages of a VM's disks.
pub(super) fn storages(guest: &Guest) -> Vec<String> {
    let mut storages: Vec<String> = guest
        .config
        .disks
        .iter()
        .filter_map(|drive| drive.storage().map(str::to_owned))
        .collect();
    storages.sort();
    storages.dedup();
    storages
}

async fn make(proxmox: &Proxmox, guest: &Guest, shell: &Shell, id: &StateId) -> Result<String, Error> {
    let live = {
        let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
        let found = Found::read(&mut monitor).await?;
        let drives = guest
            .config
            .disks
            .iter()
            .map(|drive| found.drive(&drive.option, &guest.object));
        drives.collect::<Result<Vec<_>, _>>()?
    };
    let mut parts = Vec::new();
    for (drive, live) in guest.config.disks.iter().zip(live) {
        let path = allocate(proxmox, guest, shell, drive, &live, id).await?;
        parts.push(Part {
            disk: drive.option.clone(),
            live,
            path,
        });
    }
    let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
    prepare(&mut monitor, guest, id, &parts).await?;
    let actions: Vec<Value> = parts.iter().map(|part| backup(id, part)).collect();
    let hold = agent::freeze(proxmox, guest, shell, id).await;
    let begun = tokio::time::timeout(BEGIN, monitor.call("transaction", json!({"actions": actions}))).await;
    let quiesced = hold.end().await;
    match begun {
        Ok(begun) => begun.map(drop)?,
        Err(_) => {
            return Err(Error::new(Kind::Busy, "freeze", &guest.object)
                .detail(format!("the backup jobs did not begin within {} s", BEGIN.as_secs())));
        }
    }
    for part in &parts {
        let export = json!({"type": "nbd", "id": id.of_disk(&part.disk), "node-name": id.node(&part.disk),
                            "name": part.disk, "writable": false});
        monitor.call("block-export-add", export).await?;
    }
    Ok(quiesced)
}

/// Makes the volume for what the guest overwrites on a disk: as long as the disk, and empty. Its path.
async fn allocate(
    proxmox: &Proxmox,
    guest: &Guest,
    shell: &Shell,
    drive: &crate::proxmox::config::Drive,
    live: &LiveDrive,
    id: &StateId,
) -> Result<String, Error> {
    let object = format!("disk {:?} of {}", drive.option, guest.object);
    let storage = drive.storage().unwrap_or_default();
    let known = proxmox.client.storages(&guest.at.node).await?;
    let has_files = known.iter().any(|known| known.name == storage && known.has_files());
    let name = id.volume(guest.at.vmid, &drive.option);
    // A qcow2 on a device needs room for its tables.
    let (name, kind, bytes) = if has_files {
        (format!("{name}.qcow2"), "qcow2", live.size)
    } else {
        (name, "raw", live.size + live.size / 1024 + (4 << 20))
    };
    let script = format!(
        "set -e\n\
         volume=$(pvesm alloc {storage} {vmid} {name} {kib} --format {kind} | sed -n \"s/^successfully created '\\(.*\\)'$/\\1/p\")\n\
         path=$(pvesm path \"$volume\")\n\
         case $path in /*) ;; *) echo \"$path is no path\" >&2; exit 1 ;; esac\n\
         qemu-img create -q -f qcow2 -- \"$path\" {size} >&2\n\
         printf '%s\\n' \"$path\"\n",
        storage = quote(storage),
        vmid = guest.at.vmid,
        name = quote(&name),
        kib = bytes.div_ceil(1024),
        size = live.size,
    );
    let made = shell
        .run(&script, "make room for what the guest overwrites on", &object)
        .await;
    match made {
        Ok(said) => Ok(said.trim_end_matches('\n').to_owned()),
        Err(error) if error.kind() == Kind::Failed => Err(error.remedy(format!(
            "see that storage {storage} can hold a second volume of that size, or stop the VM for the migration"
        ))),
        Err(error) => Err(error),
    }
}

/// Block nodes for the volumes, each over its disk, and the server.
async fn prepare(monitor: &mut Qmp, guest: &Guest, id: &StateId, parts: &[Part]) -> Result<(), Error> {
    for part in parts {
        let driver = if part.path.starts_with("/dev/") {
            "host_device"
        } else {
            "file"
        };
        let node = json!({"driver": "qcow2", "node-name": id.node(&part.disk), "backing": part.live.node,
                          "file": {"driver": driver, "filename": part.path}});
        monitor.call("blockdev-add", node).await?;
    }
    let address = json!({"addr": {"type": "unix", "data": {"path": id.socket()}}});
    let started = monitor.call("nbd-server-start", address).await;
    started.map(drop).map_err(|error| match error.kind() {
        Kind::Busy => Error::new(Kind::Busy, "freeze", &guest.object)
            .source(error)
            .remedy("wait until the migration, the backup or the other export of the VM has ended"),
        _ => error,
    })
}

fn backup(id: &StateId, part: &Part) -> Value {
    json!({"type": "blockdev-backup", "data": {
        "job-id": id.of_disk(&part.disk), "device": part.live.node, "target": id.node(&part.disk), "sync": "none"}})
}

/// Whether the state is still there, and what the VM has besides it.
pub(super) async fn compare(proxmox: &Proxmox, guest: &Guest, frozen: &FrozenId) -> Result<Found, Error> {
    let lost = |why: &str| gone(&guest.object, frozen, why);
    let Some((id, "")) = StateId::parse(&frozen.0) else {
        return Err(lost("it is not the name of one"));
    };
    if !guest.is_running() {
        return Err(lost("the VM was stopped"));
    }
    let shell = proxmox.shell(&guest.at.node).await?;
    let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
    let found = Found::read(&mut monitor).await?;
    if !found.holds(&id, &names(guest)) {
        return Err(lost(
            "its backup jobs have ended: the VM was started anew, or its volume for changes was full",
        ));
    }
    Ok(found)
}

/// Opens a disk in the state `frozen`.
pub(super) async fn open(proxmox: &Proxmox, guest: &Guest, frozen: &FrozenId, disk: &str) -> Result<Disk, Error> {
    let found = compare(proxmox, guest, frozen).await?;
    guest.drive(disk)?;
    let live = found.drive(disk, &guest.object)?;
    let Some((id, _)) = StateId::parse(&frozen.0) else {
        return Err(gone(&guest.object, frozen, "it is not the name of one"));
    };
    Ok(Disk {
        proxmox: proxmox.clone(),
        vm: guest.vm.clone(),
        frozen: frozen.clone(),
        name: disk.to_owned(),
        capacity: live.size,
        object: format!("disk {disk:?} of {}", guest.object),
        shell: proxmox.shell(&guest.at.node).await?,
        socket: id.socket(),
        script: None,
        connection: OnceCell::new(),
    })
}
