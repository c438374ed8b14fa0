//! Without ssh: a full clone on a storage whose folder this machine has, too, and the clone's files read there.
//!
//! A running VM is cloned from a snapshot, whose disks are of one instant. Clone and snapshot are called `vmferry-TAG`, and the clone's
//! description has the owner's tag and a nonce, so that only ours is found, and deleted at the release.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use vmferry_block::{AllocationMap, Buf, LocalFile};
use vmferry_image::{Image, Limits, NoBacking, Source};

use super::Guest;
use super::disk::gone;
use crate::proxmox::client::Call;
use crate::proxmox::client::task::{TaskEntry, Upid};
use crate::proxmox::client::types::Storage;
use crate::proxmox::client::vm::Located;
use crate::proxmox::config::VmConfig;
use crate::proxmox::{Proxmox, Shared};
use crate::{DiskSource, Error, Frozen, FrozenId, Kind, VmSelector};

/// What the names of these states begin with.
const PREFIX: &str = "clone-";
/// How long copying all disks of a VM may take.
const COPY: Duration = Duration::from_hours(24);
/// How long a snapshot or a deletion may take.
const LIMIT: Duration = Duration::from_mins(10);
/// How often another id is tried where one is taken.
const IDS: u32 = 8;
/// The pause between two looks at a clone that another process has begun.
const PAUSE: Duration = Duration::from_secs(2);

/// An entry of `GET /nodes/N/qemu/VMID/snapshot`.
#[derive(Deserialize)]
struct Snapshot {
    name: String,
}

/// A clone of ours.
#[derive(Debug, Clone)]
struct Clone {
    at: Located,
    nonce: String,
    config: VmConfig,
}

fn name(tag: &str) -> String {
    format!("vmferry-{tag}")
}

fn mark(tag: &str) -> String {
    format!("vmferry clone {tag} ")
}

impl Clone {
    fn id(&self, tag: &str) -> FrozenId {
        FrozenId(format!("{PREFIX}{}-{}-{tag}", self.at.vmid, self.nonce))
    }
}

/// Whether a state is of this kind.
pub(super) fn is_clone(frozen: &FrozenId) -> bool {
    frozen.0.starts_with(PREFIX)
}

/// Refuses what cannot be cloned so.
pub(super) async fn check(proxmox: &Proxmox, guest: &Guest, shared: &Shared) -> Result<(), Error> {
    let storages = proxmox.client.storages(&guest.at.node).await?;
    let target = storages.iter().find(|storage| storage.name == shared.storage);
    if !target.is_some_and(|storage| storage.holds("images") && storage.has_files() && storage.is_usable()) {
        return Err(Error::new(Kind::Unsupported, "clone", &guest.object)
            .detail(format!(
                "node {} has no storage {} with files and content type images",
                guest.at.node, shared.storage
            ))
            .remedy(format!(
                "pvesm set {} --content images, or give the Provider ssh credentials",
                shared.storage
            )));
    }
    let metadata = tokio::fs::metadata(shared.path.join("images")).await;
    if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
        return Err(
            Error::new(Kind::Invalid, "use", format!("folder {}", shared.path.display()))
                .detail(format!(
                    "it is not that of storage {}: it has no folder images",
                    shared.storage
                ))
                .remedy("mount the storage's export there"),
        );
    }
    for drive in guest.config.disks.iter().filter(|_| guest.is_running()) {
        let storage = storages
            .iter()
            .find(|storage| Some(storage.name.as_str()) == drive.storage());
        let kind = storage.map_or("", |storage| storage.kind.as_str());
        let is_qcow2 = drive.format == crate::ImageFormat::Qcow2 && storage.is_some_and(Storage::has_files);
        if !is_qcow2 && !matches!(kind, "lvmthin" | "rbd") {
            return Err(Error::new(Kind::Unsupported, "clone", &guest.object)
                .detail(format!(
                    "no snapshot of its disk {:?} could be cloned while it runs",
                    drive.option
                ))
                .remedy("give the Provider ssh credentials, or stop the VM for the migration"));
        }
    }
    Ok(())
}

/// The clones of an owner, made or still being made. One whose first disk is not copied yet does not show whose it is.
async fn all(proxmox: &Proxmox, tag: &str) -> Result<Vec<Clone>, Error> {
    let mut clones = Vec::new();
    let vms = proxmox.client.vms().await?.into_iter();
    for vm in vms.filter(|vm| vm.name.as_deref() == Some(&name(tag))) {
        let mut at = Located {
            vmid: vm.vmid,
            node: vm.node,
        };
        let config = match proxmox.client.vm_config(&mut at, false).await {
            Err(error) if error.kind() == Kind::NotFound => continue,
            options => VmConfig::read(&options?),
        };
        if let Some(nonce) = config.description.trim().strip_prefix(&mark(tag)) {
            let nonce = nonce.to_owned();
            clones.push(Clone { at, nonce, config });
        }
    }
    Ok(clones)
}

/// The clone of an owner: one that is made, else one that is still being made.
async fn find(proxmox: &Proxmox, tag: &str) -> Result<Option<Clone>, Error> {
    let mut clones = all(proxmox, tag).await?;
    clones.sort_by_key(|clone| (clone.config.lock.is_some(), clone.at.vmid));
    Ok(clones.into_iter().next())
}

/// Whether our own user has a clone of a VM made right now: it may be an owner's whose process has ended.
async fn is_cloned(proxmox: &Proxmox, at: &Located) -> Result<bool, Error> {
    let vmid = at.vmid.to_string();
    let tasks = proxmox.client.running_tasks(&at.node).await?;
    let ours =
        |task: &TaskEntry| task.kind == "qmclone" && task.id.as_deref() == Some(&vmid) && proxmox.client.is_ours(task);
    Ok(tasks.iter().any(ours))
}

/// The state that holds.
pub(super) async fn frozen(proxmox: &Proxmox, tag: &str) -> Result<Option<Frozen>, Error> {
    let found = find(proxmox, tag).await?.filter(|clone| clone.config.lock.is_none());
    Ok(found.map(|clone| Frozen {
        detail: format!("the clone {} still is there", clone.at.vmid),
        id: clone.id(tag),
    }))
}

/// Makes the clone, or finds the one that was made before.
pub(super) async fn freeze(proxmox: &Proxmox, guest: &Guest, shared: &Shared, tag: &str) -> Result<Frozen, Error> {
    // Another process may have begun it.
    let start = Instant::now();
    while is_cloned(proxmox, &guest.at).await? && start.elapsed() < COPY {
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(clone) = find(proxmox, tag).await? {
        if clone.config.lock.is_some() {
            wait_for(proxmox, tag).await?;
        }
        if let Some(frozen) = frozen(proxmox, tag).await? {
            return Ok(frozen);
        }
    }
    let snapshot = if guest.is_running() {
        take_snapshot(proxmox, guest, tag).await?;
        Some(name(tag))
    } else {
        None
    };
    let nonce = format!("{:08x}", rand::random::<u32>());
    let mut tries = 0;
    let task = loop {
        let newid = proxmox.client.next_id().await?;
        let mut at = guest.at.clone();
        let answer: Result<Value, Error> = proxmox
            .client
            .send_at(&mut at, |at| {
                let id = at.vmid.to_string();
                let call = Call::post(&["nodes", &at.node, "qemu", &id, "clone"], "clone", &guest.object)
                    .with("newid", newid)
                    .with("name", name(tag))
                    .with("description", format!("{}{nonce}", mark(tag)))
                    .with("full", 1)
                    .with("storage", &shared.storage)
                    .with("format", "qcow2");
                match &snapshot {
                    Some(snapshot) => call.with("snapname", snapshot),
                    None => call,
                }
            })
            .await;
        match answer {
            // Ids are not reserved: another was faster.
            Err(error) if error.kind() == Kind::NameTaken && tries < IDS => tries += 1,
            answer => break Upid::parse(answer?.as_str().unwrap_or_default())?,
        }
    };
    proxmox.client.wait(&task, COPY, "clone", &guest.object).await?;
    let how = if snapshot.is_some() {
        "of a snapshot"
    } else {
        "of the stopped VM"
    };
    let made = frozen(proxmox, tag).await?;
    made.map(|frozen| Frozen {
        detail: format!("a full clone {how} on storage {}", shared.storage),
        ..frozen
    })
    .ok_or_else(|| Error::new(Kind::Failed, "find", format!("the clone of {}", guest.object)))
}

/// Another process has begun it, and its task goes on.
async fn wait_for(proxmox: &Proxmox, tag: &str) -> Result<(), Error> {
    let start = Instant::now();
    while let Some(clone) = find(proxmox, tag).await?.filter(|clone| clone.config.lock.is_some()) {
        let tasks = proxmox.client.running_tasks(&clone.at.node).await?;
        if !tasks.iter().any(|task| task.kind == "qmclone") || start.elapsed() > COPY {
            return Err(Error::new(Kind::Busy, "use", format!("the clone {}", clone.at.vmid))
                .detail("it is locked, and no task works at it")
                .remedy(format!("qm unlock {0}; qm destroy {0}", clone.at.vmid)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn snapshots(proxmox: &Proxmox, at: &mut Located) -> Result<Vec<Snapshot>, Error> {
    let call = |at: &Located| {
        let id = at.vmid.to_string();
        Call::get(
            &["nodes", &at.node, "qemu", &id, "snapshot"],
            "list the snapshots of",
            format!("VM {id}"),
        )
    };
    proxmox.client.send_at(at, call).await
}

async fn take_snapshot(proxmox: &Proxmox, guest: &Guest, tag: &str) -> Result<(), Error> {
    let mut at = guest.at.clone();
    if snapshots(proxmox, &mut at)
        .await?
        .iter()
        .any(|known| known.name == name(tag))
    {
        return Ok(());
    }
    let call = |at: &Located| {
        let id = at.vmid.to_string();
        Call::post(
            &["nodes", &at.node, "qemu", &id, "snapshot"],
            "take a snapshot of",
            &guest.object,
        )
        .with("snapname", name(tag))
        .with("description", "made by vmferry for a migration")
    };
    let answer: String = proxmox.client.send_at(&mut at, call).await?;
    let task = Upid::parse(&answer)?;
    proxmox
        .client
        .wait(&task, LIMIT, "take a snapshot of", &guest.object)
        .await
        .map(drop)
}

/// Deletes the clones, and the snapshot unless it is to be kept.
///
/// # Errors
/// [`Kind::Busy`] while a clone of the VM is being made that may be the owner's.
pub(super) async fn release(proxmox: &Proxmox, selector: &VmSelector, tag: &str, keep: bool) -> Result<(), Error> {
    let at = match proxmox.client.look_up(selector).await {
        Err(error) if error.kind() == Kind::NotFound => None,
        found => found.map(|found| {
            Some(Located {
                vmid: found.vmid,
                node: found.node,
            })
        })?,
    };
    if let Some(at) = &at
        && is_cloned(proxmox, at).await?
    {
        return Err(Error::new(
            Kind::Busy,
            "delete",
            format!("the clone of VM {} on node {}", at.vmid, at.node),
        )
        .detail("a clone of it is being made that may be this migration's")
        .remedy("it is deleted when it is done; to have that sooner, stop its task (qmclone)"));
    }
    for clone in all(proxmox, tag).await? {
        delete(proxmox, &clone).await?;
    }
    let Some(mut at) = at.filter(|_| !keep) else {
        return Ok(());
    };
    if !snapshots(proxmox, &mut at)
        .await?
        .iter()
        .any(|known| known.name == name(tag))
    {
        return Ok(());
    }
    let object = format!("the snapshot {} of VM {}", name(tag), at.vmid);
    let call = |at: &Located| {
        let id = at.vmid.to_string();
        Call::delete(
            &["nodes", &at.node, "qemu", &id, "snapshot", &name(tag)],
            "delete",
            &object,
        )
    };
    let answer: String = proxmox.client.send_at(&mut at, call).await?;
    proxmox
        .client
        .wait(&Upid::parse(&answer)?, LIMIT, "delete", &object)
        .await
        .map(drop)
}

async fn delete(proxmox: &Proxmox, clone: &Clone) -> Result<(), Error> {
    let id = clone.at.vmid.to_string();
    let object = format!("the clone {id} on node {}", clone.at.node);
    // With the disks that its configuration names, which are all of them once its lock is gone: what else has its
    // id was there before.
    let call = Call::delete(&["nodes", &clone.at.node, "qemu", &id], "delete", &object).with("purge", 1);
    let task = Upid::parse(&proxmox.client.send::<String>(&call).await?)?;
    proxmox.client.wait(&task, LIMIT, "delete", &object).await.map(drop)
}

/// Opens a disk of the clone `frozen`.
pub(super) async fn open(proxmox: &Proxmox, guest: &Guest, frozen: &FrozenId, disk: &str) -> Result<ClonedDisk, Error> {
    let object = format!("disk {disk:?} of {}", guest.object);
    let tag = frozen.0.rsplit('-').next().unwrap_or_default().to_owned();
    let clone = compare(proxmox, frozen, &tag, &object).await?;
    let Some(shared) = &proxmox.config.shared else {
        return Err(gone(&object, frozen, "the Provider names no shared storage any more"));
    };
    let drive = clone.config.disks.iter().find(|drive| drive.option == disk);
    let drive = drive.ok_or_else(|| gone(&object, frozen, "the clone has no such disk"))?;
    let path = file(shared, &drive.volume)
        .ok_or_else(|| Error::new(Kind::Failed, "find", &object).detail(format!("{:?} is no file", drive.volume)))?;
    let opened = LocalFile::open(&path).await.map_err(|error| {
        Error::new(
            Kind::Unreachable,
            "open",
            format!("file {} of {object}", path.display()),
        )
        .source(error)
        .remedy(format!(
            "check that storage {} is mounted at {}",
            shared.storage,
            shared.path.display()
        ))
    })?;
    let source = Source::new(path.display().to_string(), drive.format, std::sync::Arc::new(opened));
    let image = Image::open(source, &NoBacking, Limits::default()).await;
    Ok(ClonedDisk {
        image: image.map_err(|error| Error::new(Kind::Failed, "open", &object).source(error))?,
        proxmox: proxmox.clone(),
        frozen: frozen.clone(),
        tag,
        object,
    })
}

/// `stg:101/vm-101-disk-0.qcow2` in the storage's folder here.
fn file(shared: &Shared, volume: &str) -> Option<PathBuf> {
    let name = volume.strip_prefix(&shared.storage)?.strip_prefix(':')?;
    let (vmid, file) = name.split_once('/')?;
    let is_plain = |part: &str| !part.is_empty() && !part.contains('/') && part != "." && part != "..";
    (is_plain(vmid) && is_plain(file)).then(|| shared.path.join("images").join(vmid).join(file))
}

async fn compare(proxmox: &Proxmox, frozen: &FrozenId, tag: &str, object: &str) -> Result<Clone, Error> {
    let found = find(proxmox, tag).await?;
    let same = found.filter(|clone| clone.config.lock.is_none() && clone.id(tag) == *frozen);
    same.ok_or_else(|| gone(object, frozen, "the clone is gone"))
}

/// A disk of a clone.
pub(super) struct ClonedDisk {
    image: Image,
    proxmox: Proxmox,
    frozen: FrozenId,
    tag: String,
    object: String,
}

#[async_trait]
impl DiskSource for ClonedDisk {
    fn capacity(&self) -> u64 {
        self.image.capacity()
    }

    async fn map(&self) -> Result<AllocationMap, Error> {
        let map = self.image.map().await;
        map.map_err(|error| Error::new(Kind::Failed, "map", &self.object).source(error))
    }

    async fn read(&self, offset: u64, buf: Buf) -> Result<Buf, Error> {
        let read = self.image.read(offset, buf).await;
        read.map_err(|error| Error::new(Kind::Failed, "read", &self.object).source(error))
    }

    async fn finish(&self) -> Result<(), Error> {
        compare(&self.proxmox, &self.frozen, &self.tag, &self.object)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_a_file_of_the_storage() {
        let shared = Shared {
            storage: "stg".to_owned(),
            path: PathBuf::from("/mnt/stg"),
        };
        let path = file(&shared, "stg:101/vm-101-disk-0.qcow2");
        assert_eq!(path, Some(PathBuf::from("/mnt/stg/images/101/vm-101-disk-0.qcow2")));
        for other in [
            "x:101/vm.raw",
            "stg:101/../x",
            "stg:../../x",
            "stg:vm",
            "stg:1//x",
            "stg2:1/x",
        ] {
            assert_eq!(file(&shared, other), None, "{other}");
        }
    }
}
