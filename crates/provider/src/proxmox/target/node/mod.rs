//! Disks by ssh, where the API takes none: streamed into a file of the node, checked there, and made a disk by `qm importdisk`.
//!
//! Each migration has a folder of root's on the node, [`FOLDER`]`-TAG`. For each disk it holds the state of what is done (`disk0.lock`
//! is held by whoever is at it, `disk0.rc-100` says how its import into VM 100 ended), and the staged file, or a link to the folder on a storage where
//! that is. An import goes on by itself when the connection ends, and is found again; so is all that a process left that was killed.

mod import;
mod script;
mod sink;

pub(super) use import::{NewDrive, import};
pub(super) use script::FOLDER;
pub(super) use sink::open;

use super::choose::{Choice, has_no_import};
use super::place::{Place, mark};
use crate::proxmox::Proxmox;
use crate::{Error, Kind, Owner};
use script::Disk;

/// Whether a node lets us in, has what is needed, and has so many bytes free.
pub(super) async fn check(proxmox: &Proxmox, choice: &Choice, owner: &Owner, needed: u64) -> Result<(), Error> {
    let storage = choice.import.as_ref().map(|storage| storage.name.as_str());
    let object = format!("node {} of {}", choice.node, proxmox.object());
    let shell = proxmox.shell(&choice.node).await?;
    let script = script::check(storage, &mark(owner)?, needed);
    shell.run(&script, "bring disks by ssh to", &object).await.map(drop)
}

/// Removes the file of a place and all that came with it. Gone is success.
pub(super) async fn remove(proxmox: &Proxmox, place: &Place) -> Result<(), Error> {
    let shell = proxmox.shell(&place.node).await?;
    let script = Disk::of(place)?.remove();
    shell.run(&script, "delete", &place.object()).await.map(drop)
}

/// Removes the file of a disk from a node, where one may be there.
pub(super) async fn delete(proxmox: &Proxmox, node: &str, stem: &str, owner: &Owner) -> Result<(), Error> {
    let disk = Disk::new(stem, &mark(owner)?)?;
    on(
        proxmox,
        node,
        &disk.remove(),
        &format!("the staged file {stem} on node {node}"),
    )
    .await
}

/// Ends the imports of `owner` on a node, where there may be any.
pub(super) async fn halt(proxmox: &Proxmox, node: &str, owner: &Owner) -> Result<(), Error> {
    let script = script::halt_all(&mark(owner)?);
    on(
        proxmox,
        node,
        &script,
        &format!("the imports of the migration on node {node}"),
    )
    .await
}

/// Runs a script that undoes. Where files could not come by ssh as things are now, they may have when things were different: then
/// it is tried, and what fails is told and no more.
async fn on(proxmox: &Proxmox, node: &str, script: &str, object: &str) -> Result<(), Error> {
    let version = proxmox.client.version().await?;
    if !proxmox.may_use_nodes() {
        return Ok(());
    }
    let undone = async { proxmox.shell(node).await?.run(script, "end", object).await };
    let Err(error) = undone.await else { return Ok(()) };
    if has_no_import(proxmox, &proxmox.client.storages(node).await?, version) {
        return Err(error);
    }
    tracing::warn!(%error, "no file can be there now, and whether one was left before is not known");
    Ok(())
}

fn bug(place: &Place) -> Error {
    Error::new(Kind::Bug, "use", place.object()).detail("its name is not that of a staged file")
}
