//! The disks of a VM of ours: imported one after the other, each by a task, and grown.
//!
//! Every step is found again at Proxmox VE: a slot that is filled was imported; a task that runs is waited for; one that failed is
//! told once, with a note in the description, and then tried again.

use std::time::Duration;

use super::hardware::drive_options;
use super::place::{Place, Way};
use super::strays::Survey;
use super::vm::{configure, owned};
use super::{check, files, node, strays};
use crate::proxmox::Proxmox;
use crate::proxmox::client::api::Options;
use crate::proxmox::client::task::{TaskEntry, TaskState, Upid};
use crate::proxmox::client::types::Storage;
use crate::proxmox::client::vm::Located;
use crate::proxmox::client::{Call, kind_of_text};
use crate::proxmox::config::{Drive, Slot};
use crate::{Error, Kind, Owner, VmSpec};

/// A small disk is there at once: so long it is waited for before it is said that it is under way.
const AT_ONCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);
/// How long growing a disk may take.
const GROWING: Duration = Duration::from_mins(10);

/// Imports what is not there yet; says what is being done where that takes its time.
pub(super) async fn import(
    proxmox: &Proxmox,
    at: &mut Located,
    spec: &VmSpec,
    places: &[Place],
    slots: &[Slot],
    scsihw: &str,
    owner: &Owner,
) -> Result<Option<String>, Error> {
    // Each turn fills a slot, or ends.
    for _ in 0..=slots.len() {
        let have = owned(proxmox, at, owner).await?;
        let missing = |slot: &Slot| !have.contains_key(&slot.to_string());
        let Some(index) = slots.iter().position(missing) else {
            return Ok(None);
        };
        let what = format!(
            "disk {} of {} of VM {} ({})",
            index + 1,
            slots.len(),
            at.vmid,
            slots[index]
        );
        if places[index].way == Way::Node {
            let options = drive_options(&spec.hardware.disks[index], slots[index], scsihw);
            let drive = node::NewDrive {
                slot: slots[index],
                format: spec.disks[index].format,
                options,
                what: &what,
            };
            match node::import(proxmox, at, &places[index], &drive).await? {
                Some(progress) => return Ok(Some(progress)),
                None => continue,
            }
        }
        let tasks = proxmox.client.tasks(&at.node, at.vmid).await?;
        if let Some(running) = tasks.iter().find(|task| task.is_running()) {
            let upid = Upid::parse(&running.upid)?;
            if let Some(progress) = follow(proxmox, at, &upid, &what, owner).await? {
                return Ok(Some(progress));
            }
            continue;
        }
        if let Some((upid, why)) = untold(&tasks, &have)? {
            return Err(told(proxmox, at, &upid, &why, &what, owner).await);
        }
        let value = drive(proxmox, at, &places[index], spec, index, slots[index], scsihw).await?;
        let Some(upid) = start(proxmox, at, slots[index], &value, &places[index], &what).await? else {
            continue;
        };
        if let Some(progress) = follow(proxmox, at, &upid, &what, owner).await? {
            return Ok(Some(progress));
        }
    }
    Err(Error::new(
        Kind::Failed,
        "import",
        format!("the disks of VM {} on node {}", at.vmid, at.node),
    )
    .detail("the tasks succeeded, and the VM does not have the disks"))
}

/// The value of a drive's option: where it goes, what it is made of.
async fn drive(
    proxmox: &Proxmox,
    at: &Located,
    place: &Place,
    spec: &VmSpec,
    index: usize,
    slot: Slot,
    scsihw: &str,
) -> Result<String, Error> {
    if files::find(proxmox, place).await?.is_none() {
        return Err(
            Error::new(Kind::NotFound, "import", place.object()).detail("the staged file is not there any more")
        );
    }
    let storages = proxmox.client.storages(&place.node).await?;
    let target = storages
        .iter()
        .find(|storage| storage.name == place.target)
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "use",
                format!("storage {} on node {}", place.target, place.node),
            )
            .detail("the node has no such storage any more")
        })?;
    check::free(&place.node, target, 1)?;
    let staged = storages.iter().find(|storage| storage.name == place.storage);
    if at.node != place.node && !staged.is_some_and(|storage| storage.shared) {
        return Err(Error::new(Kind::Failed, "import", place.object())
            .detail(format!(
                "VM {} is on node {} now, which does not see the staged file",
                at.vmid, at.node
            ))
            .remedy(format!("migrate the VM back to node {}", place.node)));
    }
    let mut value = format!("{}:0,import-from={}", place.target, place.import_from());
    if target.has_files() {
        value.push_str(&format_option(spec, index));
    }
    value.push_str(&drive_options(&spec.hardware.disks[index], slot, scsihw));
    Ok(value)
}

fn format_option(spec: &VmSpec, index: usize) -> String {
    format!(",format={}", spec.disks[index].format)
}

/// Begins the import; `None` where it is done already.
async fn start(
    proxmox: &Proxmox,
    at: &mut Located,
    slot: Slot,
    value: &str,
    place: &Place,
    what: &str,
) -> Result<Option<Upid>, Error> {
    let working = match place.way {
        Way::Ova => Some(working(proxmox, place).await?),
        Way::Import | Way::Shared | Way::Node => None,
    };
    let answer: Option<String> = proxmox
        .client
        .send_at(at, |at| {
            let id = at.vmid.to_string();
            let call = Call::post(&["nodes", &at.node, "qemu", &id, "config"], "import", what);
            let call = call.with(slot.to_string(), value);
            match &working {
                Some(storage) => call.with("import-working-storage", storage),
                None => call,
            }
        })
        .await?;
    answer.map(|text| Upid::parse(&text)).transpose()
}

/// Where an image is taken out of its OVA.
async fn working(proxmox: &Proxmox, place: &Place) -> Result<String, Error> {
    let storages = proxmox.client.storages(&place.node).await?;
    let named = |name: &str| storages.iter().find(|storage| storage.name == name);
    let is_fit = |storage: &&Storage| storage.has_files() && storage.holds("images") && storage.is_usable();
    let mut candidates = named(&place.storage)
        .into_iter()
        .chain(named(&place.target))
        .chain(&storages);
    candidates
        .find(is_fit)
        .map(|storage| storage.name.clone())
        .ok_or_else(|| {
            Error::new(Kind::Unsupported, "import", place.object())
                .detail("no storage of files takes disks any more, to unpack the OVA into")
        })
}

/// Waits a moment for a task; says how far it is where it goes on.
async fn follow(
    proxmox: &Proxmox,
    at: &mut Located,
    task: &Upid,
    what: &str,
    owner: &Owner,
) -> Result<Option<String>, Error> {
    let limit = tokio::time::Instant::now() + AT_ONCE;
    loop {
        match proxmox.client.task_state(task).await? {
            TaskState::Done(warnings) => {
                if let Some(warnings) = warnings {
                    tracing::warn!(task = %task, "{what}: {warnings}; see the task's log");
                }
                return Ok(None);
            }
            TaskState::Failed(why) => return Err(told(proxmox, at, task, &why, what, owner).await),
            TaskState::Running if tokio::time::Instant::now() < limit => tokio::time::sleep(PAUSE).await,
            TaskState::Running => break,
        }
    }
    let log = proxmox.client.task_log(task).await.unwrap_or_default();
    let last = log.iter().rev().find(|line| line.starts_with("transferred"));
    Ok(Some(match last {
        Some(line) => format!("Importing {what}: {line}"),
        None => format!("Importing {what}"),
    }))
}

/// The last import, where it failed and nobody was told.
fn untold(tasks: &[TaskEntry], have: &Options) -> Result<Option<(Upid, String)>, Error> {
    let newest = tasks
        .iter()
        .filter(|task| task.kind == "qmconfig")
        .max_by_key(|task| task.starttime);
    let Some((task, why)) = newest.and_then(|task| Some((task, task.failure()?))) else {
        return Ok(None);
    };
    // On a lock nothing was begun, and nothing could be noted in what was locked.
    let is_lock = kind_of_text(why) == Kind::Busy;
    if is_lock || have.get("description").is_some_and(|text| text.contains(&task.upid)) {
        return Ok(None);
    }
    Ok(Some((Upid::parse(&task.upid)?, why.to_owned())))
}

/// The error of an import that failed; it is noted that it was told, so that the next call tries again.
async fn told(proxmox: &Proxmox, at: &mut Located, task: &Upid, why: &str, what: &str, owner: &Owner) -> Error {
    let noted = async {
        let before = Survey::of(&owned(proxmox, at, owner).await?);
        let description = strays::description(owner, &before);
        let note = format!("{description}\n\nThe import failed and is tried again: {task}");
        configure(proxmox, at, &[("description", &note)]).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%error, "cannot note that an import failed");
    }
    proxmox.client.failed(task, why, "import", what).await
}

/// Grows disks that are to be larger than what was imported.
pub(super) async fn grow(proxmox: &Proxmox, at: &mut Located, spec: &VmSpec, slots: &[Slot]) -> Result<(), Error> {
    let have = proxmox.client.vm_config(at, false).await?;
    for (disk, slot) in spec.hardware.disks.iter().zip(slots) {
        let option = slot.to_string();
        let drive = have.get(&option).and_then(|text| Drive::parse(&option, text));
        if drive
            .and_then(|drive| drive.size)
            .is_none_or(|size| size >= disk.capacity)
        {
            continue;
        }
        let what = format!("disk {option} of VM {} on node {}", at.vmid, at.node);
        let answer: Option<String> = proxmox
            .client
            .send_at(at, |at| {
                let id = at.vmid.to_string();
                Call::put(&["nodes", &at.node, "qemu", &id, "resize"], "grow", &what)
                    .with("disk", &option)
                    .with("size", disk.capacity)
            })
            .await?;
        // Before 8.0 it answers when it is done.
        if let Some(text) = answer {
            proxmox
                .client
                .wait(&Upid::parse(&text)?, GROWING, "grow", &what)
                .await?;
        }
    }
    Ok(())
}
