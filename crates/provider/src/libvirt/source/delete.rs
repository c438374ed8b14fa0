//! Deleting a VM that has been moved: its disks, and no file that another one needs.

use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt_sys as sys_raw;

use super::domain::{Domain, is_missing};
use super::storage::{self, folder, pool_of};
use crate::libvirt::Libvirt;
use crate::libvirt::xml::tree::Element;
use crate::libvirt::xml::{DomainXml, SourceXml};
use crate::{Error, Kind, VmSelector};

/// Everything that belongs to a definition and to nothing else.
const UNDEFINE: u32 = sys_raw::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys_raw::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys_raw::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys_raw::VIR_DOMAIN_UNDEFINE_NVRAM;

/// Deletes the VM. The definition goes last: as long as it is there, a deletion that was interrupted knows its disks.
pub(super) async fn delete(libvirt: &Libvirt, vm: &VmSelector) -> Result<(), Error> {
    let paths = match image_paths(libvirt, vm).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    for path in &paths {
        check_unused(libvirt, vm, path).await?;
    }
    let stop = libvirt.with_domain(
        "stop",
        vm,
        |_, domain| if domain.is_active()? { domain.destroy() } else { Ok(()) },
    );
    stop.await?;
    for path in paths {
        let object = format!("image {path} of {}", libvirt.vm_object(vm));
        let delete = libvirt.handle.call("delete", object, move |connect| {
            match storage::volume(connect, &path)? {
                Some(volume) => volume.delete(0),
                None => Ok(()),
            }
        });
        delete.await?;
    }
    let undefine = libvirt.with_domain("undefine", vm, |_, domain| match domain.undefine_flags(UNDEFINE) {
        // A transient domain was gone when it stopped.
        Err(error) if error.code().to_raw() == sys_raw::VIR_ERR_NO_DOMAIN => Ok(()),
        answer => answer,
    });
    match undefine.await {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        answer => answer,
    }
}

/// The images of the VM's disks that are still there, each in a pool.
async fn image_paths(libvirt: &Libvirt, vm: &VmSelector) -> Result<Vec<String>, Error> {
    let text = libvirt.with_domain("read", vm, |_, domain| domain.xml_desc(0)).await?;
    let mut paths = Vec::new();
    for disk in DomainXml::parse(&text)?.disks {
        let object = format!("disk {:?} of {}", disk.target, libvirt.vm_object(vm));
        if !Domain::is_disk(&disk) || disk.readonly || disk.shareable {
            continue;
        }
        let (SourceXml::File(path) | SourceXml::Block(path)) = &disk.source else {
            let SourceXml::Volume { pool, volume } = disk.source else {
                continue;
            };
            let find = libvirt.handle.call("find", object, move |connect| {
                let pool = connect.lookup_storage_pool_by_name(&pool)?;
                match pool.lookup_storage_vol_by_name(&volume) {
                    Ok(volume) => volume.path().map(Some),
                    Err(error) if is_missing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            paths.extend(find.await?);
            continue;
        };
        let wanted = path.clone();
        let find = libvirt.handle.call("find the pool of", &object, move |connect| {
            Ok(storage::volume(connect, &wanted)?.is_some() || pool_of(connect, folder(&wanted))?.is_some())
        });
        if !find.await? {
            return Err(Error::new(Kind::Unsupported, "delete", object)
                .detail(format!("its image {path} lies in no active storage pool"))
                .remedy("define a pool for its folder (virsh pool-create-as), or delete the VM by hand"));
        }
        paths.push(path.clone());
    }
    Ok(paths)
}

/// Refuses an image that another VM uses, or on which another image of its pool stands.
async fn check_unused(libvirt: &Libvirt, vm: &VmSelector, path: &str) -> Result<(), Error> {
    let object = format!("image {path} of {}", libvirt.vm_object(vm));
    let (wanted, selector) = (path.to_owned(), vm.clone());
    let search = libvirt.handle.call("find the users of", &object, move |connect| {
        let me = crate::libvirt::hypervisor::look_up(connect, &selector)?.uuid_string()?;
        Ok(other_domain(connect, &me, &wanted)?.or(overlay(connect, &wanted)?))
    });
    match search.await? {
        None => Ok(()),
        Some(user) => Err(Error::new(Kind::Unsupported, "delete", object)
            .detail(format!("{user} uses it"))
            .remedy("detach or flatten that one first, or delete the VM by hand")),
    }
}

/// Another domain that has the file among its disks or their chains. Blocks.
fn other_domain(connect: &Connect, me: &str, path: &str) -> Result<Option<String>, VirtError> {
    for domain in connect.list_all_domains(0)? {
        // A domain that is gone meanwhile uses nothing.
        let (Ok(uuid), Ok(text)) = (domain.uuid_string(), domain.xml_desc(0)) else {
            continue;
        };
        if uuid == me {
            continue;
        }
        let Ok(root) = Element::parse(&text) else { continue };
        let disks = root
            .child("devices")
            .into_iter()
            .flat_map(|devices| devices.all("disk"));
        if disks.into_iter().any(|disk| mentions(disk, path)) {
            return Ok(Some(format!("VM {:?}", domain.name()?)));
        }
    }
    Ok(None)
}

/// Whether a `<disk>` or one of its `<backingStore>`s has this source.
fn mentions(holder: &Element, path: &str) -> bool {
    let source = |name| holder.attr_at(&["source"], name) == Some(path);
    source("file") || source("dev") || holder.child("backingStore").is_some_and(|store| mentions(store, path))
}

/// Another volume of the same pool that has the file as its backing file. Blocks.
fn overlay(connect: &Connect, path: &str) -> Result<Option<String>, VirtError> {
    let Some(pool) = pool_of(connect, folder(path))? else {
        return Ok(None);
    };
    pool.refresh(0)?;
    for volume in pool.list_all_volumes(0)? {
        let Ok(text) = volume.xml_desc(0) else { continue };
        let Ok(root) = Element::parse(&text) else { continue };
        if root.text_at(&["backingStore", "path"]) == Some(path) {
            return Ok(Some(format!("volume {:?}", volume.name()?)));
        }
    }
    Ok(None)
}
