//! Creating: the target VM, as the source is now, hints applied, over the volumes that were imported.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::VMMigrationSpec;
use vmferry_api::names::{condition, event};
use vmferry_provider::{Creation, Disk, Hardware, TargetDisk, Vm, VmSpec, VolumeId};

use crate::failure::{Failure, Trouble};
use crate::hints;
use crate::plan;
use crate::run::{Outcome, Run};

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        let vm = run.source().await?.vm().await?;
        let target = run.target().await?;
        let format = plan::target_format(run.spec(), &target);
        let volume = |id: &Option<String>| {
            let id = id
                .clone()
                .ok_or_else(|| Failure::bug("status.disks: targetVolume is not set"))?;
            Ok(TargetDisk {
                volume: VolumeId(id),
                format,
            })
        };
        let disks = run.status.disks.iter().map(|disk| volume(&disk.target_volume));
        let spec = VmSpec {
            name: run.spec().target_name.clone(),
            hardware: hardware(run, &vm)?,
            disks: disks.collect::<Result<_, Failure>>()?,
        };
        let made = target.host.create_vm(&spec, &run.owner).await;
        let created = match made.map_err(|fault| Failure::target(&fault))? {
            Creation::Done(created) => created,
            Creation::UnderWay(what) => {
                run.status.message = Some(what);
                return Ok(Outcome::Wait(run.config.poll));
            }
        };
        run.status.target_vm_id = Some(created.id.0.clone());
        let text = format!("Target VM {} created as {}", created.name, created.id.0);
        run.tell(event::VM_CREATED, "Target VM created successfully");
        Ok(Outcome::Done("VMCreated", text))
    }
    .boxed()
}

/// The target is needed only once a VM may have been made there.
pub(crate) fn undo(run: &Run) -> BoxFuture<'_, Result<(), Trouble>> {
    async move {
        if !run.has(condition::IMPORTED) {
            return Ok(());
        }
        let target = run.target().await?;
        let deleted = target.host.delete_created(&run.spec().target_name, &run.owner).await;
        deleted.map_err(|fault| Failure::target(&fault).into())
    }
    .boxed()
}

/// What the target VM is to be made of: the source's hardware with the disks that were exported, hints applied.
pub(crate) fn hardware(run: &Run, vm: &Vm) -> Result<Hardware, Failure> {
    let mut found = vm.hardware.clone();
    found.disks = exported(run, vm)?;
    let spec: &VMMigrationSpec = run.spec();
    let mut hardware = hints::apply(spec, &found)?;
    for (disk, (index, capacity)) in hardware.disks.iter_mut().zip(run.capacities().into_iter().enumerate()) {
        disk.capacity = hints::capacity(spec, index, capacity);
    }
    Ok(hardware)
}

/// The VM's disks, which must still be those that were exported.
fn exported(run: &Run, vm: &Vm) -> Result<Vec<Disk>, Failure> {
    let names: Vec<_> = vm.hardware.disks.iter().map(|disk| disk.name.as_str()).collect();
    let recorded: Vec<_> = run.status.disks.iter().map(|disk| disk.name.as_str()).collect();
    if names != recorded {
        let text = format!(
            "VM {} had the disks {} when it was exported and has {} now; delete this migration and create it again",
            vm.name,
            recorded.join(", "),
            names.join(", ")
        );
        return Err(Failure::permanent("SourceChanged", text));
    }
    let disks = vm.hardware.disks.iter().zip(run.capacities());
    // The exported capacity counts: a disk that has grown since then is as large at the target as it was then.
    Ok(disks
        .map(|(disk, capacity)| Disk {
            capacity,
            ..disk.clone()
        })
        .collect())
}
