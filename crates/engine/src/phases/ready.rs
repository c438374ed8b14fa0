//! Ready: the target VM is declared, then the cleanup policy is carried out: intermediate, snapshot, and only then source.
//!
//! From here on nothing is undone: the target VM is validated and belongs to the user. The reason of the condition Ready
//! records which act is next, so a crash between two acts goes on with the second.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{
    ANNOTATION_REASON, ANNOTATION_REQUESTOR, ANNOTATION_TICKET, LABEL_SOURCE_PROVIDER, LABEL_TARGET_PROVIDER,
    LABEL_TYPE, condition, event,
};
use vmferry_api::{
    ImportedDisk, Key, ObjectReference, PowerStateSpec, VirtualMachine, VirtualMachineSpec, VirtualMachineStatus,
};
use vmferry_provider::{FrozenId, PowerState, Vm};

use super::validating_target::wanted;
use crate::cleanup;
use crate::failure::{Failure, Trouble};
use crate::plan;
use crate::port::FailureKind;
use crate::run::{Outcome, Run};
use crate::world::{Source, Target, provider_key};

/// Labels that the target VirtualMachine gets from the migration.
const LABELS: [&str; 3] = [LABEL_TYPE, LABEL_SOURCE_PROVIDER, LABEL_TARGET_PROVIDER];
/// Annotations that it gets.
const ANNOTATIONS: [&str; 3] = [ANNOTATION_REQUESTOR, ANNOTATION_REASON, ANNOTATION_TICKET];

const INTERMEDIATE: &str = "CleaningIntermediate";
const SNAPSHOT: &str = "CleaningSnapshot";
const SOURCE: &str = "DeletingSource";

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        match run.condition_reason(condition::READY) {
            Some(INTERMEDIATE) => {
                cleanup::intermediate(run).await?;
                Ok(next(run, SNAPSHOT, "Cleaning up the source VM's snapshot"))
            }
            Some(SNAPSHOT) => {
                cleanup::snapshot(run).await?;
                if run.spec().cleanup_policy.delete_source {
                    return Ok(next(run, SOURCE, "Deleting the source VM"));
                }
                Ok(completed(run))
            }
            // The policy may have been changed since.
            Some(SOURCE) if !run.spec().cleanup_policy.delete_source => Ok(completed(run)),
            Some(SOURCE) => {
                let source = run.source().await?;
                if let Some(vm) = find(&source).await? {
                    check_disks(run, &source, &vm)?;
                    check_state(run, &source, &vm).await?;
                }
                let deleted = source.host.delete_source(&source.selector).await;
                deleted.map_err(|fault| Failure::source(&fault))?;
                Ok(completed(run))
            }
            _ => {
                declare(run).await?;
                Ok(next(run, INTERMEDIATE, "Cleaning up the intermediate storage"))
            }
        }
    }
    .boxed()
}

/// The source VM. There is none, or not all of it, where a deletion was broken off before it was recorded.
async fn find(source: &Source) -> Result<Option<Vm>, Failure> {
    match source.host.find_vm(&source.selector).await {
        Err(fault) if fault.kind() == vmferry_provider::Kind::NotFound => Ok(None),
        found => found.map(Some).map_err(|fault| Failure::source(&fault)),
    }
}

/// A disk that came to the source after its export is nowhere else. Fewer disks are none that would be lost.
fn check_disks(run: &Run, source: &Source, vm: &Vm) -> Result<(), Failure> {
    let exported = |name: &str| run.status.disks.iter().any(|disk| disk.name == name);
    let disks = vm.hardware.disks.iter().map(|disk| disk.name.as_str());
    let names: Vec<_> = disks.filter(|name| !exported(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let why = format!(
        "it has disks that were not there when it was exported: {}; take them from it",
        names.join(", ")
    );
    Err(changed(source, vm, &why))
}

/// What was written to a VM that was moved shut off is nowhere else. Of one that was moved running everybody knows that it went on.
async fn check_state(run: &Run, source: &Source, vm: &Vm) -> Result<(), Failure> {
    let Some(exported) = run
        .status
        .snapshot_id
        .clone()
        .map(FrozenId)
        .filter(FrozenId::is_offline)
    else {
        return Ok(());
    };
    let now = match source.host.frozen(vm, &run.owner).await {
        Err(fault) if fault.kind() == vmferry_provider::Kind::NotFound => return Ok(()),
        now => now.map_err(|fault| Failure::source(&fault))?,
    };
    if now.is_some_and(|now| now.id == exported) {
        return Ok(());
    }
    let why = "it was shut off when it was exported, and is not as it was: it was started, written or moved since; delete it by hand when nothing of that is needed";
    Err(changed(source, vm, why))
}

fn changed(source: &Source, vm: &Vm, why: &str) -> Failure {
    let text = format!(
        "cannot delete VM {} on {}: {why}, or set spec.cleanupPolicy.deleteSource to false and keep it",
        vm.name,
        source.host.describe()
    );
    Failure::new(FailureKind::Retryable, "SourceChanged", text)
}

fn next(run: &mut Run, reason: &str, text: &str) -> Outcome {
    run.condition(condition::READY, false, reason, text);
    run.status.message = Some(text.to_owned());
    Outcome::Again
}

fn completed(run: &mut Run) -> Outcome {
    let text = "Migration completed successfully";
    run.tell(event::MIGRATION_COMPLETED, text);
    Outcome::Done("MigrationCompleted", text.to_owned())
}

/// Declares the target VM as a VirtualMachine, unless one of its name is declared already, which stays as it is. Only here,
/// where nothing is undone any more: there is no half-made VirtualMachine to take back.
async fn declare(run: &mut Run) -> Result<(), Trouble> {
    let key = run.target_key();
    let target = run.target().await?;
    let power = wanted(run, &run.source().await?).await?;
    let store = run.ports.store.clone();
    let declared = match store.create_virtual_machine(&resource(run, &target, power)).await {
        // Such as a namespace that is not there: the user is to know.
        Err(error) if !error.conflict => {
            return Err(Failure::new(FailureKind::Retryable, "DeclarationFailed", error.to_string()).into());
        }
        declared => declared?,
    };
    if !declared {
        let found = store.virtual_machine(&key).await?;
        if found.is_none_or(|vm| provider_key(&key, &vm) != target.key) {
            // Of that name, but of another VM: most often the source's own. It is not ours to refer to.
            return Ok(());
        }
    }
    run.status.target_vm_ref = Some(reference(&key));
    Ok(())
}

fn resource(run: &Run, target: &Target, power: PowerState) -> VirtualMachine {
    let key = run.target_key();
    let first = run.status.disks.first();
    let bytes = run.volumes(target).first().map(|volume| volume.capacity);
    let imported = ImportedDisk {
        disk_id: first.and_then(|disk| disk.target_volume.clone()),
        format: Some(plan::target_format(run.spec(), target).to_string()),
        source: Some("migration".to_owned()),
        migration_ref: Some(reference(&run.key)),
        size_gib: bytes.and_then(|bytes| i64::try_from(bytes.div_ceil(1 << 30)).ok()),
        ..ImportedDisk::default()
    };
    let spec = VirtualMachineSpec {
        provider_ref: reference(&target.key),
        class_ref: None,
        imported_disk: Some(imported),
        networks: Vec::new(),
        power_state: Some(match power {
            PowerState::On => PowerStateSpec::On,
            PowerState::Off => PowerStateSpec::Off,
        }),
        other: BTreeMap::new(),
    };
    let mut vm = VirtualMachine::new(&key.name, spec);
    vm.metadata.namespace = Some(key.namespace);
    vm.metadata.labels = carried(run.migration.metadata.labels.as_ref(), &LABELS);
    vm.metadata.annotations = carried(run.migration.metadata.annotations.as_ref(), &ANNOTATIONS);
    vm.status = Some(VirtualMachineStatus {
        id: run.status.target_vm_id.clone(),
        ..VirtualMachineStatus::default()
    });
    vm
}

/// Those of the migration's own labels or annotations that say where the VM came from and why.
fn carried(all: Option<&BTreeMap<String, String>>, names: &[&str]) -> Option<BTreeMap<String, String>> {
    let ours: BTreeMap<_, _> = all?
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!ours.is_empty()).then_some(ours)
}

fn reference(key: &Key) -> ObjectReference {
    ObjectReference {
        name: key.name.clone(),
        namespace: Some(key.namespace.clone()),
    }
}
