//! Deleting a VM that has been moved: its disks, and no file that another one needs.

use virt_sys as sys_raw;

use super::domain::{Domain, is_missing};
use super::storage::{self, folder, pool_of};
use super::users::Users;
use crate::libvirt::Libvirt;
use crate::libvirt::xml::{DomainXml, SourceXml};
use crate::{Error, Kind, VmSelector};

/// Everything that belongs to a definition and to nothing else. Not its saved memory: see [`check_saved`].
const UNDEFINE: u32 = sys_raw::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys_raw::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys_raw::VIR_DOMAIN_UNDEFINE_NVRAM;

/// Deletes the VM. The definition goes last: as long as it is there, a deletion that was interrupted knows its disks.
pub(super) async fn delete(libvirt: &Libvirt, vm: &VmSelector) -> Result<(), Error> {
    if libvirt.is_gone(vm).await? {
        return Ok(());
    }
    check_saved(libvirt, vm).await?;
    let paths = image_paths(libvirt, vm).await?;
    check_unused(libvirt, vm, &paths).await?;
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
        Err(error) if error.kind() == Kind::NotFound && libvirt.is_gone(vm).await? => Ok(()),
        answer => answer,
    }
}

/// Refuses a VM whose memory is saved: it is nowhere else, and was saved after the export.
async fn check_saved(libvirt: &Libvirt, vm: &VmSelector) -> Result<(), Error> {
    let saved = libvirt.with_domain("read", vm, |_, domain| domain.has_managed_save(0));
    if !saved.await? {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, "delete", libvirt.vm_object(vm))
        .detail("its memory is saved (virsh managedsave): it ran after it was moved")
        .remedy("look at what it holds; then give it up (virsh managedsave-remove), or keep the VM"))
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

/// Refuses images that another VM uses, or on which another image stands, and a host where that cannot be known.
async fn check_unused(libvirt: &Libvirt, vm: &VmSelector, paths: &[String]) -> Result<(), Error> {
    let object = |path: &str| format!("image {path} of {}", libvirt.vm_object(vm));
    let search = libvirt.with_domain("find the users of the disks of", vm, |connect, domain| {
        Users::find(connect, &domain.uuid_string()?)
    });
    let users = search.await?;
    for path in paths {
        if let Some(user) = users.of(path) {
            return Err(Error::new(Kind::Unsupported, "delete", object(path))
                .detail(format!("{user} uses it"))
                .remedy("detach or flatten that one first, or delete the VM by hand"));
        }
    }
    match (users.unknown, paths.first()) {
        (Some((user, image)), Some(path)) => Err(Error::new(Kind::Unsupported, "delete", object(path))
            .detail(format!(
                "nobody can tell whether {user} stands on it: {image} lies in no active storage pool"
            ))
            .remedy(format!(
                "define a pool for {} (virsh pool-create-as), or delete the VM by hand",
                folder(&image)
            ))),
        _ => Ok(()),
    }
}
