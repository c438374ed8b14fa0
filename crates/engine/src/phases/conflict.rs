//! No two migrations of one VM, or to one name: one that has begun goes on, of two that have not the older one; the other says
//! which it is in conflict with.

use vmferry_api::names::condition;
use vmferry_api::{Key, Phase, VMMigration, VMMigrationSpec, VMMigrationStatus, VirtualMachine};

use super::pending::is_older;
use crate::failure::{Failure, Trouble};
use crate::line::key;
use crate::port::FailureKind;
use crate::run::Run;
use crate::world::provider_key;

/// Fails where another migration of the same source VM, or to the same target VM, has not come to its end, and has begun to act
/// or is older. A younger one may have begun: it was looked at when this one was not known, or was to be another.
pub(super) async fn check(run: &Run) -> Result<(), Trouble> {
    let Some(started) = &run.status.start_time else {
        return Err(Failure::bug("status.startTime is not set").into());
    };
    let mine = identity(run, &run.source_key()).await?;
    for other in run.ports.store.migrations().await? {
        let status = other.status.clone().unwrap_or_default();
        let other_key = key(&other);
        let Some(other_started) = &status.start_time else {
            continue;
        };
        let older = is_older((other_started, &other_key), (started, &run.key));
        let acts = has_begun(&status);
        if other_key == run.key || status.completion_time.is_some() || !(older || acts) {
            continue;
        }
        let spec = other.effective_spec();
        let source = Key::new(&spec.source_namespace, &spec.source_name);
        if source == run.source_key() || (mine.is_some() && identity(run, &source).await? == mine) {
            let what = format!("migrate VirtualMachine {source}, named by spec.sourceName");
            let text = "already migrates the same VM";
            return Err(conflict(&other, &other_key, "ConflictingMigration", &what, text).into());
        }
        if target(&spec, &other_key) == target(run.spec(), &run.key) {
            let what = format!("make VM {}, named by spec.targetName", run.spec().target_name);
            let text = "is about to make a VM of the same name at the same provider";
            return Err(conflict(&other, &other_key, "TargetNameTaken", &what, text).into());
        }
    }
    Ok(())
}

/// Whether a migration may have made something: it was validated.
fn has_begun(status: &VMMigrationStatus) -> bool {
    let validated = status.conditions.iter().find(|each| each.type_ == condition::VALIDATED);
    validated.is_some_and(|each| each.status == "True")
}

/// What makes two VirtualMachine resources the same VM: one provider, one id there.
async fn identity(run: &Run, vm_key: &Key) -> Result<Option<(Key, String)>, Trouble> {
    let vm = run.ports.store.virtual_machine(vm_key).await?;
    let id = |vm: VirtualMachine| {
        let provider = provider_key(vm_key, &vm);
        let id = vm.status.and_then(|status| status.id);
        (provider, id.unwrap_or_else(|| vm_key.name.clone()))
    };
    Ok(vm.map(id))
}

/// The target provider and the name there.
fn target(spec: &VMMigrationSpec, key: &Key) -> (Key, String) {
    let reference = &spec.target_provider_ref;
    let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
    (Key::new(namespace, &reference.name), spec.target_name.clone())
}

fn conflict(other: &VMMigration, other_key: &Key, reason: &'static str, what: &str, text: &str) -> Failure {
    let phase = other.status.as_ref().map(|status| status.phase).unwrap_or_default();
    // One that only cleans up leaves soon: worth another try.
    let leaves = phase == Phase::Failed || other.metadata.deletion_timestamp.is_some();
    let (kind, remedy) = if leaves {
        (FailureKind::Retryable, "it is being cleaned up")
    } else {
        (
            FailureKind::Permanent,
            "wait until it is done or delete it, then create this one again",
        )
    };
    let message = format!("cannot {what}: VMMigration {other_key} (phase {phase:?}) {text}; {remedy}");
    Failure::new(kind, reason, message)
}
