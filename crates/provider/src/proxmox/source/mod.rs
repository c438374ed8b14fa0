//! The source side: how a VM's disks are frozen, and how their bytes leave the cluster.
//!
//! ```text
//!             running                                stopped
//! freeze      filters, by QEMU's monitor             nothing (offline)
//! state id    vmferry-TAG-NONCE                      offline-DIGEST-TAG
//! open_disk   NBD from the VM itself (running)       NBD from qemu-nbd on the node (offline)
//! release     take the filters out, free volumes     end qemu-nbd
//! ```
//!
//! No endpoint of the API gives a disk's bytes, so they come by ssh from the node that the VM is on: NBD over a unix socket that the
//! ssh session forwards. The node is looked up each time; a VM that moved is another state.
//!
//! Without ssh, a full clone on a storage that this machine has too is the state, and its files are read ([`clone`]).
//!
//! Architecture Invariant: nothing here changes the VM, its configuration or its images, but for [`delete`], for the snapshot that a clone is made from, and for the moment in
//! which its guest stands still ([`agent`]).

mod agent;
mod check;
mod clone;
mod delete;
mod disk;
mod found;
mod insert;
mod leftovers;
mod offline;
mod running;
mod state;
mod volume;
mod watchdog;

use std::sync::Arc;

use async_trait::async_trait;

use super::client::vm::Located;
use super::config::VmConfig;
use super::{Proxmox, Shared};
use crate::{DiskInput, Error, Frozen, FrozenId, Kind, Owner, PowerState, SourceHost, Vm, VmSelector};

/// A VM as it is now.
struct Guest {
    vm: Vm,
    at: Located,
    config: VmConfig,
    /// How messages call it.
    object: String,
}

impl Guest {
    async fn read(proxmox: &Proxmox, vm: &Vm) -> Result<Self, Error> {
        let selector = VmSelector {
            id: Some(vm.id.0.clone()),
            name: vm.name.clone(),
        };
        let (vm, at, config) = proxmox.read_vm(&selector).await?;
        let object = format!("VM {:?} (VMID {}) on node {}", vm.name, at.vmid, at.node);
        Ok(Self { vm, at, config, object })
    }

    fn is_running(&self) -> bool {
        self.vm.power == PowerState::On
    }

    /// The drive of a disk.
    fn drive(&self, disk: &str) -> Result<&super::config::Drive, Error> {
        self.config
            .disks
            .iter()
            .find(|drive| drive.option == disk)
            .ok_or_else(|| {
                Error::new(Kind::NotFound, "find", format!("disk {disk:?} of {}", self.object))
                    .detail("the VM's configuration has no such disk")
            })
    }
}

#[async_trait]
impl SourceHost for Proxmox {
    async fn check_source(&self, vm: &Vm) -> Result<(), Error> {
        check::check(self, &Guest::read(self, vm).await?).await
    }

    async fn freeze(&self, vm: &Vm, owner: &Owner, keep: bool) -> Result<Frozen, Error> {
        let guest = Guest::read(self, vm).await?;
        check::check(self, &guest).await?;
        if let Some(shared) = without_ssh(self) {
            return clone::freeze(self, &guest, shared, &tag(owner)?).await;
        }
        let mut frozen = if guest.is_running() {
            running::freeze(self, &guest, &tag(owner)?).await?
        } else {
            offline::frozen(self, &guest, &tag(owner)?).await?
        };
        if keep {
            frozen.detail.push_str("; nothing outlives it, since it is no snapshot");
        }
        Ok(frozen)
    }

    async fn frozen(&self, vm: &Vm, owner: &Owner) -> Result<Option<Frozen>, Error> {
        let guest = Guest::read(self, vm).await?;
        if without_ssh(self).is_some() {
            clone::frozen(self, &tag(owner)?).await
        } else if guest.is_running() {
            running::frozen(self, &guest, &tag(owner)?).await
        } else {
            offline::frozen(self, &guest, &tag(owner)?).await.map(Some)
        }
    }

    async fn release(&self, vm: &VmSelector, owner: &Owner, keep: bool) -> Result<(), Error> {
        if without_ssh(self).is_some() {
            return clone::release(self, vm, &tag(owner)?, keep).await;
        }
        leftovers::release(self, vm, &tag(owner)?).await
    }

    async fn open_disk(&self, vm: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error> {
        let guest = match Guest::read(self, vm).await {
            Err(error) if error.kind() == Kind::NotFound => {
                return Err(disk::gone(&vm.name, frozen, "the VM is gone").source(error));
            }
            read => read?,
        };
        if clone::is_clone(frozen) {
            return Ok(DiskInput::Random(Arc::new(
                clone::open(self, &guest, frozen, disk).await?,
            )));
        }
        Ok(DiskInput::Random(Arc::new(if frozen.is_offline() {
            offline::open(self, &guest, frozen, disk).await?
        } else {
            running::open(self, &guest, frozen, disk).await?
        })))
    }

    async fn delete_source(&self, vm: &VmSelector) -> Result<(), Error> {
        delete::delete(self, vm).await
    }
}

/// The storage for clones, where there is nothing to log in to a node with.
fn without_ssh(proxmox: &Proxmox) -> Option<&Shared> {
    proxmox.config.shared.as_ref().filter(|_| !proxmox.may_use_nodes())
}

/// The owner's tag, which is in all names.
fn tag(owner: &Owner) -> Result<String, Error> {
    let tag = owner.tag();
    if tag.is_empty() {
        return Err(Error::new(Kind::Bug, "use", format!("the UID {:?}", owner.uid)).detail("it has no hex digit"));
    }
    Ok(tag)
}
