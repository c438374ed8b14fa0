//! Validating: everything that can be known beforehand. Nothing is made before all rules hold.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::event;
use vmferry_api::{MigrationStorage, SourcePower, StorageType};
use vmferry_provider::{Kind, PowerState, TargetPlan, Vm};

use super::{conflict, pending};
use crate::failure::{Failure, Trouble};
use crate::hints;
use crate::plan;
use crate::run::{Outcome, Run};
use crate::text;
use crate::world::Target;

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        check_storage(&run.spec().storage)?;
        run.bandwidth_limit()?;
        // First what needs no host to answer.
        let staging = run.staging().await?;
        let source = run.source().await?;
        let target = run.target().await?;
        conflict::check(run).await?;
        pending::label(run).await?;

        source.host.check().await.map_err(|fault| Failure::source(&fault))?;
        let vm = source.vm().await?;
        let fit = source.host.check_source(&vm).await;
        fit.map_err(|fault| Failure::source(&fault))?;
        if vm.hardware.disks.is_empty() {
            let text = format!(
                "cannot migrate VM {} on {}: it has no disk",
                vm.name,
                source.host.describe()
            );
            return Err(Failure::permanent("UnsupportedSource", text).into());
        }
        for disk in &vm.hardware.disks {
            run.object_key(&disk.name, plan::staged_format(target.resource.spec.provider_type))?;
        }
        check_target(run, &target, &vm).await?;
        let notes = staging.check(0).await.map_err(|fault| Failure::staging(&fault))?;

        run.status.source_vm_id = Some(vm.id.0);
        run.status.source_power_state = Some(match vm.power {
            PowerState::On => SourcePower::On,
            PowerState::Off => SourcePower::Off,
        });
        let validated = "Source VM and target provider validated";
        run.tell(event::VALIDATION_SUCCESSFUL, validated);
        Ok(Outcome::Done("ValidationSuccessful", text::noted(validated, &notes)))
    }
    .boxed()
}

/// What each kind of storage cannot do without. The rules of the resource as a whole are enforced where it comes in.
fn check_storage(storage: &MigrationStorage) -> Result<(), Failure> {
    let (name, fields): (_, &[(&str, &Option<String>)]) = match storage.storage_type {
        StorageType::S3 => ("s3", &[("bucket", &storage.bucket), ("region", &storage.region)]),
        StorageType::Http => ("http", &[("endpoint", &storage.endpoint)]),
        StorageType::Nfs => ("nfs", &[("path", &storage.path)]),
    };
    let missing = fields
        .iter()
        .find(|(_, value)| value.as_deref().unwrap_or_default().is_empty());
    match missing {
        None => Ok(()),
        Some((field, _)) => Err(Failure::permanent(
            "StorageInvalid",
            format!("spec.storage.{field} is missing, which storage of type {name} needs; set it"),
        )),
    }
}

async fn check_target(run: &Run, target: &Target, vm: &Vm) -> Result<(), Trouble> {
    let spec = run.spec();
    let hardware = hints::apply(spec, &vm.hardware)?;
    target.host.check().await.map_err(|fault| Failure::target(&fault))?;
    let format = plan::target_format(spec, target);
    let formats = target.host.formats();
    if !formats.contains(&format) {
        let names: Vec<_> = formats.iter().map(ToString::to_string).collect();
        let text = format!(
            "spec.targetDiskFormat is {format}, which {} cannot take; set it to one of: {}",
            target.host.describe(),
            names.join(", ")
        );
        return Err(Failure::permanent("UnsupportedFormat", text).into());
    }
    let capacities: Vec<_> = vm.hardware.disks.iter().map(|disk| disk.capacity).collect();
    let mut plan = TargetPlan {
        name: spec.target_name.clone(),
        storage: plan::storage(spec, target),
        disks: plan::volumes(spec, target, &capacities),
        attachments: hardware.nics.into_iter().map(|nic| nic.attachment).collect(),
    };
    let Err(fault) = target.host.check_target(&plan, &run.owner).await else {
        return Ok(());
    };
    let mut failure = Failure::target(&fault);
    if fault.kind() == Kind::NotFound {
        // Storage or a network? The same question without networks tells.
        plan.attachments.clear();
        if target.host.check_target(&plan, &run.owner).await.is_ok() {
            failure.reason = "NetworkNotFound";
        }
    }
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifests;

    #[test]
    fn each_kind_of_storage_has_its_fields() {
        let mut storage = manifests::migration("m", 1).spec.storage;
        assert_eq!(check_storage(&storage), Ok(()));
        for (kind, field) in [
            (StorageType::S3, "bucket"),
            (StorageType::Http, "endpoint"),
            (StorageType::Nfs, "path"),
        ] {
            storage.storage_type = kind;
            storage.path = None;
            let error = check_storage(&storage).unwrap_err();
            assert!(
                error.message.contains(&format!("spec.storage.{field}")),
                "{}",
                error.message
            );
            assert_eq!(error.reason, "StorageInvalid");
        }
        storage.storage_type = StorageType::S3;
        storage.bucket = Some("b".into());
        assert!(check_storage(&storage).unwrap_err().message.contains("region"));
    }
}
