//! What could not be made, before anything is.

use virt::error::Error as VirtError;
use virt_sys as sys;

use super::{FORMATS, name, vm};
use crate::libvirt::Libvirt;
use crate::{Error, ImageFormat, Kind, NicAttachment, Owner, TargetPlan};

/// A pool with less free than this is full. What a migration will write is not known before the disks are read, so this only
/// covers what even empty disks need: the tables of the images, and the files that libvirt keeps with a VM.
const LEAST_FREE: u64 = 64 << 20;

/// Checks a plan.
pub(super) async fn plan(libvirt: &Libvirt, plan: &TargetPlan, owner: &Owner) -> Result<(), Error> {
    name::check_vm_name(&plan.name)?;
    for disk in &plan.disks {
        check_format(disk.format)?;
        name::volume(disk, owner)?;
    }
    let mut pools: Vec<_> = plan.disks.iter().map(|disk| disk.storage.as_deref()).collect();
    pools.push(plan.storage.as_deref());
    pools.sort_unstable();
    pools.dedup();
    for pool in pools {
        check_space(libvirt, libvirt.pool_name(pool)).await?;
    }
    for attachment in &plan.attachments {
        check_attachment(libvirt, attachment).await?;
    }
    // Volumes need no look: a name with our tag is ours.
    vm::find(libvirt, &plan.name, owner).await?;
    Ok(())
}

/// Refuses a format that disks here cannot have.
pub(super) fn check_format(format: ImageFormat) -> Result<(), Error> {
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(
        Error::new(Kind::Unsupported, "make", format!("a volume of format {format}"))
            .detail("libvirt runs VMs from qcow2 and raw images")
            .remedy("set spec.targetDiskFormat to qcow2 or raw, or leave it out for qcow2"),
    )
}

async fn check_space(libvirt: &Libvirt, pool: &str) -> Result<(), Error> {
    let free = libvirt.check_pool(pool).await?;
    if free >= LEAST_FREE {
        return Ok(());
    }
    Err(Error::new(Kind::NoSpace, "use", super::pool::object(pool))
        .detail(format!(
            "{} MiB are free, at least {} MiB are needed",
            free >> 20,
            LEAST_FREE >> 20
        ))
        .remedy("free some space in it, or name another pool in spec.targetStorageHint"))
}

async fn check_attachment(libvirt: &Libvirt, attachment: &NicAttachment) -> Result<(), Error> {
    match attachment {
        NicAttachment::User => Ok(()),
        NicAttachment::Network(name) => check_network(libvirt, name).await,
        NicAttachment::Bridge(name) => check_bridge(libvirt, name).await,
        NicAttachment::Other(_) => check_kind(attachment),
    }
}

/// Refuses an attachment that no target has.
pub(super) fn check_kind(attachment: &NicAttachment) -> Result<(), Error> {
    match attachment {
        NicAttachment::User | NicAttachment::Network(_) | NicAttachment::Bridge(_) => Ok(()),
        NicAttachment::Other(what) => {
            Err(
                Error::new(Kind::Unsupported, "attach", format!("a network interface to {what}"))
                    .detail("only networks, bridges and user-mode networking can be carried over")
                    .remedy("name a network or bridge of the target for it in spec.targetNetworkHints"),
            )
        }
    }
}

async fn check_network(libvirt: &Libvirt, name: &str) -> Result<(), Error> {
    let object = format!("network \"{name}\"");
    let wanted = name.to_owned();
    let look = move |connect: &virt::connect::Connect| connect.lookup_network_by_name(&wanted)?.is_active();
    match libvirt.handle.call("use", &object, look).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(Kind::NotFound, "use", object)
            .detail("it is not active")
            .remedy(format!("start it on the target host: virsh net-start {name}"))),
        Err(fault) if fault.kind() == Kind::NotFound => Err(Error::new(Kind::NotFound, "use", object)
            .detail("the host has no such network")
            .remedy("name another network or a bridge in spec.targetNetworkHints (virsh net-list --all shows them)")),
        Err(fault) => Err(fault),
    }
}

/// A bridge is a network interface of the host, or belongs to one of libvirt's networks. A host whose interfaces libvirt
/// does not see is believed.
async fn check_bridge(libvirt: &Libvirt, name: &str) -> Result<(), Error> {
    let object = format!("bridge \"{name}\"");
    let wanted = name.to_owned();
    let is_there = libvirt
        .handle
        .call("use", &object, move |connect| {
            match connect.lookup_interface_by_name(&wanted) {
                Err(error) if is_unknown_interface(&error) => {
                    let networks = connect.list_all_networks(0).unwrap_or_default();
                    Ok(networks
                        .iter()
                        .any(|network| network.bridge_name().is_ok_and(|bridge| bridge == wanted)))
                }
                _ => Ok(true),
            }
        })
        .await?;
    if is_there {
        return Ok(());
    }
    Err(Error::new(Kind::NotFound, "use", object)
        .detail("the host has no such network interface")
        .remedy("name a bridge or a network of the target host in spec.targetNetworkHints"))
}

fn is_unknown_interface(error: &VirtError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_NO_INTERFACE
}
