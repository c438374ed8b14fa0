//! VMs of ours: made, found, deleted.

use std::time::Duration;

use tokio::time::Instant;

use super::hardware::{boot, options, slots};
use super::place::{Place, Way, mark};
use super::strays::Survey;
use super::{check, disks, files, node, power, strays};
use crate::proxmox::Proxmox;
use crate::proxmox::client::task::Upid;
use crate::proxmox::client::types::has_tag;
use crate::proxmox::client::vm::Located;
use crate::proxmox::client::{Call, api::Options};
use crate::{CreatedVm, Creation, Error, Kind, Owner, PowerState, VmId, VmSpec};

/// How long it may take to make a VM without disks, and to delete one.
const MAKING: Duration = Duration::from_mins(3);
const DELETING: Duration = Duration::from_mins(15);
/// How long VMs that are just being made are waited for: one may be ours, and does not show it yet.
const SETTLING: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(500);
/// How many ids are tried.
const IDS: u32 = 8;

/// The VM that was made for `owner`, if there is one.
///
/// # Errors
/// [`Kind::NameTaken`] where there is none and the name is another's.
pub(super) async fn find(proxmox: &Proxmox, name: &str, owner: &Owner) -> Result<Option<Located>, Error> {
    let mark = mark(owner)?;
    let all = proxmox.client.vms().await?;
    for vm in all.iter().filter(|vm| vm.has_tag(&mark)) {
        let mut at = Located {
            vmid: vm.vmid,
            node: vm.node.clone(),
        };
        match owned(proxmox, &mut at, owner).await {
            Ok(_) => return Ok(Some(at)),
            // Another's with our tag, or gone meanwhile.
            Err(error) if matches!(error.kind(), Kind::NameTaken | Kind::NotFound) => {}
            // It may be ours, and nobody can say so now.
            Err(error) => return Err(error),
        }
    }
    match all.iter().find(|vm| vm.name.as_deref() == Some(name)) {
        None => Ok(None),
        Some(other) => Err(Error::new(Kind::NameTaken, "use", format!("the VM name {name:?}"))
            .detail(format!(
                "{} has a VM {} of that name that this migration did not make",
                proxmox.object(),
                other.vmid
            ))
            .remedy("choose another spec.targetName, or remove that VM")),
    }
}

/// The options of a VM that must be `owner`'s: by its tag, and by the UID in its description.
pub(super) async fn owned(proxmox: &Proxmox, at: &mut Located, owner: &Owner) -> Result<Options, Error> {
    let options = proxmox.client.vm_config(at, false).await?;
    let text = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    if has_tag(text("tags"), &mark(owner)?) && text("description").contains(owner.uid.as_str()) {
        return Ok(options);
    }
    Err(Error::new(
        Kind::NameTaken,
        "use",
        format!("VM {} on {}", at.vmid, proxmox.object()),
    )
    .detail("its tags and description do not say that this migration made it"))
}

/// Makes a VM, or goes on with one.
pub(super) async fn create(proxmox: &Proxmox, spec: &VmSpec, owner: &Owner) -> Result<Creation, Error> {
    check::name(&spec.name)?;
    let object = format!("VM {:?} on {}", spec.name, proxmox.object());
    let places = spec.disks.iter().map(|disk| Place::owned(&disk.volume, owner));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    if places.len() != spec.hardware.disks.len() {
        let detail = format!("{} volumes for {} disks", places.len(), spec.hardware.disks.len());
        return Err(Error::new(Kind::Bug, "make", object).detail(detail));
    }
    let Some(first) = places.first() else {
        return Err(Error::new(Kind::Unsupported, "make", object).detail("it has no disk"));
    };
    if let Some(other) = places
        .iter()
        .find(|place| place.node != first.node && place.way != Way::Shared)
    {
        return Err(Error::new(Kind::Failed, "make", object)
            .detail(format!(
                "its disks were staged on two nodes, {} and {}",
                first.node, other.node
            ))
            .remedy("name the node for new VMs in the Provider, and create the migration again"));
    }
    let (slots, scsihw) = slots(&spec.hardware.disks)?;
    let mut at = match find(proxmox, &spec.name, owner).await? {
        Some(at) => at,
        None => match settled(proxmox, &spec.name, owner).await? {
            Some(at) => at,
            None => make(proxmox, spec, first, scsihw, owner).await?,
        },
    };
    if let Some(what) = disks::import(proxmox, &mut at, spec, &places, &slots, scsihw, owner).await? {
        return Ok(Creation::UnderWay(what));
    }
    disks::grow(proxmox, &mut at, spec, &slots).await?;
    let have = owned(proxmox, &mut at, owner).await?;
    strays::free(proxmox, &mut at, &have).await?;
    let boot = boot(&spec.hardware.disks, &slots);
    let description = strays::description(owner, &Survey::of(&have));
    let is = |name: &str, value: &str| have.get(name).map(|have| have.trim_end()) == Some(value);
    if !is("boot", &boot) || !is("description", &description) {
        configure(proxmox, &mut at, &[("boot", &boot), ("description", &description)]).await?;
    }
    for place in &places {
        files::remove(proxmox, place).await?;
    }
    Ok(Creation::Done(CreatedVm {
        id: VmId(at.vmid.to_string()),
        name: spec.name.clone(),
    }))
}

/// Changes options of a VM.
pub(super) async fn configure(proxmox: &Proxmox, at: &mut Located, options: &[(&str, &str)]) -> Result<(), Error> {
    let _: serde_json::Value = proxmox
        .client
        .send_at(at, |at| {
            let (id, what) = (at.vmid.to_string(), format!("VM {} on node {}", at.vmid, at.node));
            let call = Call::put(&["nodes", &at.node, "qemu", &id, "config"], "configure", what);
            call.with_all(
                options
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            )
        })
        .await?;
    Ok(())
}

/// Waits for VMs that are being made right now, and looks again: until its file is written, a VM has no mark.
async fn settled(proxmox: &Proxmox, name: &str, owner: &Owner) -> Result<Option<Located>, Error> {
    let limit = Instant::now() + SETTLING;
    let mut has_waited = false;
    while Instant::now() < limit && being_made(proxmox).await?.is_some() {
        has_waited = true;
        tokio::time::sleep(PAUSE).await;
    }
    if has_waited {
        find(proxmox, name, owner).await
    } else {
        Ok(None)
    }
}

/// A task that makes a VM right now.
async fn being_made(proxmox: &Proxmox) -> Result<Option<String>, Error> {
    for node in proxmox.client.nodes().await?.iter().filter(|node| node.is_online()) {
        let tasks = proxmox.client.running_tasks(&node.name).await?;
        if let Some(task) = tasks.into_iter().find(|task| task.kind == "qmcreate") {
            return Ok(Some(task.upid));
        }
    }
    Ok(None)
}

/// Makes the VM without disks.
async fn make(proxmox: &Proxmox, spec: &VmSpec, first: &Place, scsihw: &str, owner: &Owner) -> Result<Located, Error> {
    let (client, node) = (&proxmox.client, &first.node);
    let version = client.version().await?;
    let bridges = client.bridges(node).await?;
    let default = proxmox.config.bridge.as_deref();
    let options = options(&spec.hardware, scsihw, version, &first.target, &bridges, default)?;
    let mut taken = None;
    for _ in 0..IDS {
        let vmid = client.next_id().await?;
        let before = Survey::make(proxmox, node, vmid).await?;
        let what = format!("VM {:?} as {vmid} on node {node}", spec.name);
        let call = Call::post(&["nodes", node, "qemu"], "create", &what)
            .with("vmid", vmid)
            .with("name", &spec.name)
            .with("tags", mark(owner)?)
            .with("description", strays::description(owner, &before))
            .with_all(options.clone());
        let made = match client.send::<String>(&call).await {
            Ok(upid) => client.wait(&Upid::parse(&upid)?, MAKING, "create", &what).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(_) => {
                return Ok(Located {
                    vmid,
                    node: node.clone(),
                });
            }
            // Somebody was faster with this id.
            Err(error) if error.kind() == Kind::NameTaken => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(
        Error::new(Kind::Busy, "create", format!("VM {:?} on node {node}", spec.name)).detail(match taken {
            Some(error) => format!("{IDS} ids were taken by others meanwhile; the last time: {error}"),
            None => "no id is free".to_owned(),
        }),
    )
}

/// Deletes the VM that was made for `owner`, with its disks. What is another's is left alone, whatever its name.
pub(super) async fn delete(proxmox: &Proxmox, name: &str, owner: &Owner) -> Result<(), Error> {
    let find = async || match find(proxmox, name, owner).await {
        Err(error) if error.kind() == Kind::NameTaken => Ok(None),
        found => found,
    };
    if find().await?.is_none() {
        match settled(proxmox, name, owner).await {
            Err(error) if error.kind() != Kind::NameTaken => return Err(error),
            Ok(Some(_)) => {}
            _ => none_is_made(proxmox, name).await?,
        }
    }
    while let Some(mut at) = find().await? {
        node::halt(proxmox, &at.node, owner).await?;
        delete_one(proxmox, &mut at, owner).await?;
    }
    Ok(())
}

/// Refuses to say that a VM is gone while one is being made that may be it.
async fn none_is_made(proxmox: &Proxmox, name: &str) -> Result<(), Error> {
    let Some(task) = being_made(proxmox).await? else {
        return Ok(());
    };
    let what = format!("VM {name:?} on {}", proxmox.object());
    Err(Error::new(Kind::Busy, "delete", what).detail(format!("a VM is being made that may become it: {task}")))
}

/// Deletes a VM with the disks that its configuration names, and what half imports left. What had its id before is
/// another's.
async fn delete_one(proxmox: &Proxmox, at: &mut Located, owner: &Owner) -> Result<(), Error> {
    let client = &proxmox.client;
    for task in client.tasks(&at.node, at.vmid).await? {
        if task.is_running() {
            client.stop_task(&Upid::parse(&task.upid)?).await?;
        }
    }
    power::switch(proxmox, at, PowerState::Off).await?;
    let have = owned(proxmox, at, owner).await?;
    strays::free(proxmox, at, &have).await?;
    let upid: String = client
        .send_at(at, |at| {
            let (id, what) = (at.vmid.to_string(), format!("VM {} on node {}", at.vmid, at.node));
            Call::delete(&["nodes", &at.node, "qemu", &id], "delete", what).with("purge", 1)
        })
        .await?;
    let what = format!("VM {} on node {}", at.vmid, at.node);
    client.wait(&Upid::parse(&upid)?, DELETING, "delete", &what).await?;
    Ok(())
}
