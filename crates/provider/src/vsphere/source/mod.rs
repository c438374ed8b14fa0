//! The source side: how a VM's disks are frozen, and how they are read.
//!
//! ```text
//!             running or suspended                  shut off
//! freeze      snapshot vmferry-TAG                  nothing
//! state id    the snapshot's own (snapshot-42)      offline-DIGEST
//! open_disk   lease by ExportSnapshot               lease by ExportVm
//! release     remove the snapshot                   nothing
//! ```
//!
//! All disks of a state are read under one lease, asked for by the first read and completed by the last `finish` ([`share`]): a
//! VM can have no second one.
//!
//! Architecture Invariant: nothing here changes the VM but for the snapshot, which is known by its name and by the migration's UID
//! in its description, and for [`delete`].

mod check;
mod delete;
mod most;
mod offline;
mod place;
mod share;
mod snapshot;
mod stream;
mod sum;

use async_trait::async_trait;

pub(super) use share::Leases;

use super::VSphere;
use super::inventory::VmInfo;
use super::soap::Moref;
use crate::{DiskInput, Error, Frozen, FrozenId, Kind, Owner, PowerState, SourceHost, Vm, VmSelector};
use snapshot::Mark;

#[async_trait]
impl SourceHost for VSphere {
    async fn check_source(&self, vm: &Vm) -> Result<(), Error> {
        check::check(&self.look_up(&selector(vm)).await?)
    }

    async fn freeze(&self, vm: &Vm, owner: &Owner, _keep: bool) -> Result<Frozen, Error> {
        let mark = Mark::of(owner)?;
        let info = self.look_up(&selector(vm)).await?;
        check::check(&info)?;
        if let Some(held) = held(&info, &mark) {
            return Ok(held);
        }
        snapshot::create(&self.client, &info, &mark).await
    }

    async fn frozen(&self, vm: &Vm, owner: &Owner) -> Result<Option<Frozen>, Error> {
        let mark = Mark::of(owner)?;
        let info = self.look_up(&selector(vm)).await?;
        Ok(held(&info, &mark))
    }

    async fn release(&self, vm: &VmSelector, owner: &Owner, keep: bool) -> Result<(), Error> {
        if keep {
            return Ok(());
        }
        match snapshot::remove(self, vm, &Mark::of(owner)?).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            answer => answer,
        }
    }

    async fn open_disk(&self, vm: &Vm, frozen: &FrozenId, disk: &str) -> Result<DiskInput, Error> {
        let state = State::find(self, &selector(vm), frozen).await?;
        Ok(DiskInput::Stream(Box::new(stream::open(self, state, disk).await?)))
    }

    async fn delete_source(&self, vm: &VmSelector) -> Result<(), Error> {
        delete::delete(self, vm).await
    }
}

/// The state that holds: the owner's snapshot, whether the VM runs or not, or the disks of a VM that is shut off.
fn held(info: &VmInfo, mark: &Mark) -> Option<Frozen> {
    let snapshot = snapshot::find(info, mark).into_iter().next();
    snapshot.map(snapshot::Snapshot::frozen).or_else(|| match info.power {
        PowerState::Off => Some(Frozen {
            id: offline::state(info),
            detail: "the VM is shut off: its disks are read as they are".to_owned(),
        }),
        PowerState::On => None,
    })
}

/// Selects the VM that was found.
fn selector(vm: &Vm) -> VmSelector {
    VmSelector {
        id: Some(vm.id.0.clone()),
        name: vm.name.clone(),
    }
}

/// A frozen state that was found to hold.
struct State {
    vm: VmSelector,
    frozen: FrozenId,
    info: VmInfo,
    /// What the lease is asked of: the snapshot, or the VM.
    subject: Moref,
}

impl State {
    /// Looks at the server. [`FrozenStateGone`](Kind::FrozenStateGone) where it does not hold any more.
    async fn find(vsphere: &VSphere, vm: &VmSelector, frozen: &FrozenId) -> Result<Self, Error> {
        let info = match vsphere.look_up(vm).await {
            Err(error) if error.kind() == Kind::NotFound => {
                return Err(gone(&super::inventory::object(&vsphere.client, &vm.name)).source(error));
            }
            answer => answer?,
        };
        let subject = if frozen.is_offline() {
            offline::check(&info, frozen)?;
            info.moref.clone()
        } else {
            let snapshot = snapshot::by_id(&info, &frozen.0);
            snapshot.ok_or_else(|| gone(&info.object).detail(format!("it has no snapshot {} any more", frozen.0)))?
        };
        Ok(Self {
            vm: vm.clone(),
            frozen: frozen.clone(),
            info,
            subject,
        })
    }
}

impl State {
    /// Whether a state that held when the lease was had holds still.
    async fn still_leased(&self, vsphere: &VSphere) -> Result<(), Error> {
        if !self.frozen.is_offline() {
            return Self::find(vsphere, &self.vm, &self.frozen).await.map(drop);
        }
        offline::check_leased(&self.info, &vsphere.look_up(&self.vm).await?)
    }
}

/// The error for a state that does not hold any more.
fn gone(object: &str) -> Error {
    Error::new(Kind::FrozenStateGone, "read the frozen disks of", object)
}
