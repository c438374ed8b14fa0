//! The source side: what a VM's disks are, how they are frozen, and how they are read.
//!
//! ```text
//!             running or paused                    shut off
//! freeze      pull-mode backup job (running)       nothing (offline)
//! state id    vmferry-TAG-NONCE                    offline-DIGEST
//! open_disk   NBD (export)                         image files (offline, file)
//! release     end the job, remove its files        nothing
//! ```
//!
//! Architecture Invariant: nothing here changes the VM, its definition or its images, but for [`delete`], for the checkpoint that
//! a kept snapshot is, and for the moment in which its guest stands still ([`agent`]).

mod agent;
mod backing;
mod delete;
mod domain;
mod export;
mod file;
mod job;
mod leftovers;
mod mark;
mod offline;
mod read_ahead;
mod running;
mod storage;
mod users;

use std::sync::Arc;

use async_trait::async_trait;

pub(super) use domain::Domain;

use super::Libvirt;
use crate::{DiskInput, Error, Frozen, FrozenId, Kind, Owner, PowerState, SourceHost, Vm, VmSelector};

#[async_trait]
impl SourceHost for Libvirt {
    async fn check_source(&self, vm: &Vm) -> Result<(), Error> {
        let domain = Domain::read(self, &domain::selector(vm)).await?;
        if domain.disks.is_empty() {
            return Err(Error::new(Kind::Unsupported, "move", domain.object)
                .detail("it has no disk")
                .remedy("attach one"));
        }
        match domain.power {
            PowerState::Off => offline::check(self, &domain).await,
            PowerState::On => domain.disks.iter().try_for_each(|disk| {
                let object = format!("disk {:?} of {}", disk.model.name, domain.object);
                backing::check_live(&object, &disk.path, &disk.backing)
            }),
        }
    }

    async fn freeze(&self, vm: &Vm, owner: &Owner, keep: bool) -> Result<Frozen, Error> {
        let selector = domain::selector(vm);
        self.check_source(vm).await?;
        let domain = Domain::read(self, &selector).await?;
        match domain.power {
            PowerState::On => running::freeze(self, &domain, &selector, &tag(owner)?, keep).await,
            PowerState::Off => offline_state(self, &domain).await,
        }
    }

    async fn frozen(&self, vm: &Vm, owner: &Owner) -> Result<Option<Frozen>, Error> {
        let selector = domain::selector(vm);
        let domain = Domain::read(self, &selector).await?;
        match domain.power {
            PowerState::On => running::frozen(self, &domain, &selector, &tag(owner)?).await,
            PowerState::Off => offline_state(self, &domain).await.map(Some),
        }
    }

    async fn release(&self, vm: &VmSelector, owner: &Owner, keep: bool) -> Result<(), Error> {
        let tag = tag(owner)?;
        let missing = match release(self, vm, &tag, keep).await {
            Err(error) if error.kind() == Kind::NotFound => error,
            answer => return answer,
        };
        if self.is_gone(vm).await? {
            return Ok(());
        }
        // Something of it went at the same time, such as a job that ended.
        tracing::debug!(vm = vm.name, error = %missing, "released once more");
        release(self, vm, &tag, keep).await
    }

    async fn open_disk(&self, vm: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error> {
        let selector = domain::selector(vm);
        let domain = Domain::read(self, &selector).await?;
        Ok(DiskInput::Random(if frozen.is_offline() {
            Arc::new(offline::open(self, &domain, &selector, frozen, disk).await?)
        } else {
            Arc::new(export::open(self, &domain, &selector, frozen, disk).await?)
        }))
    }

    async fn delete_source(&self, vm: &VmSelector) -> Result<(), Error> {
        delete::delete(self, vm).await
    }
}

/// The owner's tag, which is in all names.
fn tag(owner: &Owner) -> Result<String, Error> {
    let tag = owner.tag();
    if tag.is_empty() {
        return Err(Error::new(Kind::Bug, "use", format!("the UID {:?}", owner.uid)).detail("it has no hex digit"));
    }
    Ok(tag)
}

async fn offline_state(libvirt: &Libvirt, domain: &Domain) -> Result<Frozen, Error> {
    let is_block = domain.disks.iter().any(|disk| disk.is_block);
    let detail = if is_block {
        "the VM is shut off: its disks are read as they are; keep it so until they are, since a block device does not show that it was written"
    } else {
        "the VM is shut off: its image files are read as they are"
    };
    Ok(Frozen {
        id: offline::state(libvirt, domain).await?,
        detail: detail.to_owned(),
    })
}

async fn release(libvirt: &Libvirt, vm: &VmSelector, tag: &str, keep: bool) -> Result<(), Error> {
    agent::recover(libvirt, vm, Some(tag)).await;
    running::end(libvirt, vm, tag).await?;
    if !keep {
        running::delete_checkpoints(libvirt, vm, tag).await?;
    }
    leftovers::remove(libvirt, vm, tag).await
}
