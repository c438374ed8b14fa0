//! What may outlive a job. libvirt removes the scratch files whenever a job ends, and the socket when it is aborted; a VM that
//! is destroyed leaves the socket, and a daemon that died with the VM may leave both.

use std::collections::BTreeSet;
use std::path::Path;

use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::domain::{Domain, is_missing};
use super::job::StateId;
use super::storage::{folder, pool_of};
use crate::libvirt::Libvirt;
use crate::libvirt::xml::{DomainXml, SourceXml};
use crate::{Error, VmSelector};

/// Removes what jobs of the owner left beside the VM's images.
pub(super) async fn remove(libvirt: &Libvirt, vm: &VmSelector, tag: &str) -> Result<(), Error> {
    let folders = folders(libvirt, vm).await?;
    for folder in folders {
        let object = format!("scratch files in {folder} on {}", libvirt.handle.endpoint());
        let (name, owner) = (folder.clone(), tag.to_owned());
        let sweep = libvirt
            .handle
            .call("remove", object, move |connect| sweep_pool(connect, &name, &owner));
        sweep.await?;
        if libvirt.may_be_local() {
            let tag = tag.to_owned();
            // Nothing to find and nothing allowed are the same here: the pool above has done what it could.
            let _ = tokio::task::spawn_blocking(move || sweep_folder(Path::new(&folder), &tag)).await;
        }
    }
    Ok(())
}

/// The folders of the VM's images.
async fn folders(libvirt: &Libvirt, vm: &VmSelector) -> Result<BTreeSet<String>, Error> {
    let text = libvirt.with_domain("read", vm, |_, domain| domain.xml_desc(0)).await?;
    let disks = DomainXml::parse(&text)?.disks;
    let paths = disks
        .iter()
        .filter(|disk| Domain::is_disk(disk))
        .filter_map(|disk| match &disk.source {
            SourceXml::File(path) => Some(folder(path).to_owned()),
            _ => None,
        });
    Ok(paths.collect())
}

/// Deletes the scratch files among a pool's volumes. Blocks.
fn sweep_pool(connect: &Connect, folder: &str, tag: &str) -> Result<(), VirtError> {
    let Some(pool) = pool_of(connect, folder)? else {
        return Ok(());
    };
    // Refused while the pool is busy. Scratch files are left so seldom that this is no reason to fail.
    let _ = pool.refresh(0);
    for name in pool.list_volumes()?.iter().filter(|name| is_scratch(name, tag)) {
        match pool
            .lookup_storage_vol_by_name(name)
            .and_then(|volume| volume.delete(0))
        {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes scratch files and sockets from a folder of this machine. Blocks.
fn sweep_folder(folder: &Path, tag: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| is_scratch(name, tag) || is_socket(name, tag))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_scratch(name: &str, tag: &str) -> bool {
    StateId::of_scratch(name).is_some_and(|id| id.tag == tag)
}

fn is_socket(name: &str, tag: &str) -> bool {
    name.starts_with(&StateId::prefix(tag)) && Path::new(name).extension().is_some_and(|extension| extension == "sock")
}
