//! No two migrations of one VM: the older one goes on, the younger one says which it is in conflict with.

use vmferry_api::{Key, Phase, VMMigration, VirtualMachine};

use super::pending::{is_older, key};
use crate::failure::{Failure, Trouble};
use crate::port::FailureKind;
use crate::run::Run;
use crate::world::provider_key;

/// Fails where an older migration of the same source VM has not come to its end.
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
        if other_key == run.key || status.completion_time.is_some() || !older {
            continue;
        }
        let source = Key::new(&other.spec.source_namespace, &other.spec.source_name);
        if source == run.source_key() || (mine.is_some() && identity(run, &source).await? == mine) {
            return Err(conflict(&other, &other_key, &source).into());
        }
    }
    Ok(())
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

fn conflict(other: &VMMigration, other_key: &Key, source: &Key) -> Failure {
    let phase = other.status.as_ref().map(|status| status.phase).unwrap_or_default();
    // One that only cleans up leaves soon: worth another try.
    let leaves = phase == Phase::Failed || other.metadata.deletion_timestamp.is_some();
    let (kind, remedy) = if leaves {
        (FailureKind::Retryable, "it is being cleaned up")
    } else {
        (FailureKind::Permanent, "wait until it is done or delete it, then create this one again")
    };
    Failure::new(
        kind,
        "ConflictingMigration",
        format!(
            "cannot migrate VirtualMachine {source}, named by spec.sourceName: VMMigration {other_key} (phase {phase:?}) \
             already migrates the same VM; {remedy}"
        ),
    )
}
