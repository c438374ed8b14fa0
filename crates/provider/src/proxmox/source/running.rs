//! The frozen state of a running VM: below each disk's device a filter that copies to a volume of ours what the guest
//! is about to overwrite (`copy-before-write`; QEMU's docs call it image fleecing). The disk as it was when the filter
//! came is served over NBD.
//!
//! Where that volume is full or does not answer, the filter gives up the state, and never the guest's write. The state
//! lives in the VM's own process and ends with it.

use std::time::Duration;

use serde_json::json;
use tokio::sync::OnceCell;
use vmferry_block::Buf;
use vmferry_nbd::{Client, Error as NbdError};

use super::disk::{Disk, fault, gone};
use super::found::{Found, LiveDrive, check_age};
use super::state::{Part, StateId};
use super::{Guest, agent, insert, leftovers};
use crate::proxmox::Proxmox;
use crate::proxmox::ssh::{Qmp, Shell, quote};
use crate::{Error, Frozen, FrozenId, Kind};

/// How long the guest may stand still for the filters to come.
const BEGIN: Duration = Duration::from_secs(8);
/// After how many seconds a copy that does not get done breaks the state, so that the guest can go on.
const PATIENCE: u32 = 30;

/// A disk of a state to be.
pub(super) struct NewDisk {
    pub name: String,
    pub live: LiveDrive,
    /// Path of the volume for what the guest overwrites.
    path: String,
}

fn names(guest: &Guest) -> Vec<&str> {
    guest.config.disks.iter().map(|drive| drive.option.as_str()).collect()
}

fn held(id: &StateId) -> Frozen {
    Frozen {
        detail: format!("the copy-before-write filters {id} still hold"),
        id: FrozenId(id.to_string()),
    }
}

/// The state that holds, with all of the VM's disks in it.
pub(super) async fn frozen(proxmox: &Proxmox, guest: &Guest, tag: &str) -> Result<Option<Frozen>, Error> {
    let shell = proxmox.shell(&guest.at.node).await?;
    agent::recover(&shell, guest.at.vmid, &guest.object, tag).await;
    let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
    let found = Found::read(&mut monitor).await?;
    drop(monitor);
    match found.state(tag, &names(guest)) {
        Some(id) if is_whole(&shell, guest, &id).await? => Ok(Some(held(&id))),
        _ => Ok(None),
    }
}

/// Whether all of a state can still be read: a filter that gave up says so to whoever reads, and to nobody else.
async fn is_whole(shell: &Shell, guest: &Guest, id: &StateId) -> Result<bool, Error> {
    for disk in names(guest) {
        let object = format!("disk {disk:?} of {}", guest.object);
        let looked = async {
            let client = Client::connect(shell.open_unix(&id.socket()).await?, disk).await;
            let client = client.map_err(|error| fault("open", &object, error))?;
            match client.read(0, Buf::alone(512)).await {
                Ok(_) => Ok(true),
                Err(NbdError::Request { .. }) => Ok(false),
                Err(error) => Err(fault("read", &object, error)),
            }
        };
        if !looked.await? {
            return Ok(false);
        }
    }
    Ok(true)
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
            detail: format!("copy-before-write filters {id}, {quiesced}"),
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
        check_age(&mut monitor, &guest.object).await?;
        let found = Found::read(&mut monitor).await?;
        let drives = names(guest).into_iter().map(|disk| found.drive(disk, &guest.object));
        drives.collect::<Result<Vec<_>, _>>()?
    };
    let mut disks = Vec::new();
    for (drive, live) in guest.config.disks.iter().zip(live) {
        let path = allocate(proxmox, guest, shell, drive, &live, id).await?;
        disks.push(NewDisk {
            name: drive.option.clone(),
            live,
            path,
        });
    }
    let mut monitor = shell.monitor(guest.at.vmid, &guest.object).await?;
    prepare(&mut monitor, guest, id, &disks).await?;
    let hold = agent::freeze(proxmox, guest, shell, id).await;
    let begun = tokio::time::timeout(BEGIN, insert::insert(monitor, shell, guest, id, &disks)).await;
    let quiesced = hold.end().await;
    let mut monitor = begun.unwrap_or_else(|_| {
        let detail = format!("its disks could not be frozen within {} s", BEGIN.as_secs());
        Err(Error::new(Kind::Busy, "freeze", &guest.object).detail(detail))
    })?;
    for disk in &disks {
        export(&mut monitor, id, disk).await?;
    }
    Ok(quiesced)
}

/// Serves a disk as it was. Nobody reads the guard, which is of the disk as it is.
async fn export(monitor: &mut Qmp, id: &StateId, disk: &NewDisk) -> Result<(), Error> {
    let (filter, access) = (id.node(Part::Filter, &disk.name), id.node(Part::Access, &disk.name));
    let guard = id.guard_of(&disk.name);
    let guard = json!({"type": "nbd", "id": guard, "node-name": filter, "name": guard, "writable": false});
    monitor.call("block-export-add", guard).await?;
    let node = json!({"driver": "snapshot-access", "node-name": access, "file": filter});
    monitor.call("blockdev-add", node).await?;
    let export = json!({"type": "nbd", "id": id.of_disk(&disk.name), "node-name": access, "name": disk.name,
                        "writable": false});
    monitor.call("block-export-add", export).await.map(drop)
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

/// The filters and what they copy to, with no guest below them yet; and the server.
async fn prepare(monitor: &mut Qmp, guest: &Guest, id: &StateId, disks: &[NewDisk]) -> Result<(), Error> {
    for disk in disks {
        let driver = if disk.path.starts_with("/dev/") {
            "host_device"
        } else {
            "file"
        };
        let changes = id.node(Part::Changes, &disk.name);
        let node = json!({"driver": "qcow2", "node-name": changes, "file": {"driver": driver, "filename": disk.path}});
        monitor.call("blockdev-add", node).await?;
        let filter = json!({"driver": "copy-before-write", "node-name": id.node(Part::Filter, &disk.name),
                            "file": disk.live.node, "target": changes, "on-cbw-error": "break-snapshot",
                            "cbw-timeout": PATIENCE});
        monitor.call("blockdev-add", filter).await?;
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
    drop(monitor);
    if !found.holds(&id, &names(guest)) {
        return Err(lost("its filters are gone: the VM was started anew"));
    }
    if !is_whole(&shell, guest, &id).await? {
        return Err(lost(
            "a volume for what the guest overwrites was full, or too slow: the guest went on without it",
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
