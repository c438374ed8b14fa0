//! Validating: everything that can be known beforehand. Nothing is made before all rules hold.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{HEALTH_CHECKER, PROVIDER_AVAILABLE, event};
use vmferry_api::{Provider, SourcePower, VMMigration, validate};
use vmferry_provider::{Kind, PowerState, TargetPlan, Vm};

use super::{conflict, pending};
use crate::failure::{Failure, Trouble};
use crate::hints;
use crate::plan;
use crate::port::FailureKind;
use crate::run::{Outcome, Run};
use crate::text;
use crate::world::{Target, provider_key};

/// How long after its start a migration waits for resources that it names: who applies a folder does not choose the order.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        match all(run).await {
            Err(Trouble::Failure(failure)) if failure.may_come && run.age() < GRACE => {
                run.status.message = Some(format!(
                    "Waiting for {} s at most: {}",
                    GRACE.as_secs(),
                    failure.message
                ));
                Ok(Outcome::Wait(run.config.poll))
            }
            outcome => outcome,
        }
    }
    .boxed()
}

fn all(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        // First what needs no host to answer.
        check_rules(&run.migration)?;
        check_providers(run).await?;
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
            run.object_key(&disk.name, plan::staged_format(&source, &target))?;
        }
        check_target(run, &target, &vm).await?;
        let notes = staging.check(0).await.map_err(|fault| Failure::staging(&fault))?;

        run.settle_storage(&target);
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

/// The rules of the resource. Where it came in by a cluster that knows no CEL, nobody has looked at them yet.
fn check_rules(migration: &VMMigration) -> Result<(), Failure> {
    let violations = validate::migration(migration);
    let Some(first) = violations.first() else {
        return Ok(());
    };
    let reason = match first.field.as_str() {
        field if field.starts_with("spec.storage") => "StorageInvalid",
        field if field.starts_with("spec.targetResourceHints") => "InvalidHint",
        field if field.starts_with("spec.targetNetworkHints") => "InvalidHint",
        _ => "InvalidValue",
    };
    let messages: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(Failure::permanent(reason, messages.join("; ")))
}

/// Both Providers are ready, as far as anyone has looked. What is not there is told when it is opened.
async fn check_providers(run: &Run) -> Result<(), Trouble> {
    let vm_key = run.source_key();
    let vm = run.ports.store.virtual_machine(&vm_key).await?;
    let source = vm.map(|vm| provider_key(&vm_key, &vm));
    let target = run.resolve(&run.spec().target_provider_ref);
    for key in source.into_iter().chain([target]) {
        let provider = run.ports.store.provider(&key).await?;
        if let Some(detail) = provider.as_ref().and_then(unavailable) {
            let text = format!("Provider {key} is not ready: {detail}; `kubectl describe provider` says more");
            return Err(Failure::new(FailureKind::Retryable, "ProviderNotReady", text).into());
        }
    }
    Ok(())
}

/// Why a Provider cannot be used, as whoever looks after it says. What we said of it ourselves is not looked at: the host is
/// asked anyway, and may be back by now. Nor is what was said of it before it was changed.
fn unavailable(provider: &Provider) -> Option<String> {
    let status = provider.status.as_ref()?;
    if status.health_checked_by.as_deref() == Some(HEALTH_CHECKER) {
        return None;
    }
    let condition = status.conditions.iter().find(|each| each.type_ == PROVIDER_AVAILABLE);
    let said_of = condition.and_then(|found| found.observed_generation);
    if said_of.is_some() && said_of != provider.metadata.generation {
        return None;
    }
    match condition {
        Some(found) if found.status == "False" => Some(format!("{} ({})", found.message, found.reason)),
        _ if status.healthy == Some(false) => Some("its status says healthy: false".to_owned()),
        _ => None,
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
    let storage = plan::storage(spec, target);
    let mut plan = TargetPlan {
        name: spec.target_name.clone(),
        disks: plan::volumes(spec, target, storage.as_ref(), &capacities),
        storage,
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
    use serde_json::json;

    use super::*;
    use crate::testing::manifests;

    #[test]
    fn a_broken_rule_has_the_reason_of_its_field_and_all_are_told() {
        let mut migration = manifests::migration("m", 1);
        assert_eq!(check_rules(&migration), Ok(()));
        migration.spec.storage.path = None;
        let error = check_rules(&migration).unwrap_err();
        assert_eq!((error.reason, error.kind), ("StorageInvalid", FailureKind::Permanent));
        migration.spec.target_name = "a/b".into();
        let error = check_rules(&migration).unwrap_err();
        for part in ["spec.storage.path", "spec.targetName"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        migration.spec.storage.path = Some("/staging".into());
        assert_eq!(check_rules(&migration).unwrap_err().reason, "InvalidValue");
        migration.spec.target_name = "a".into();
        migration.spec.target_network_hints = manifests::hints(&[("eth0", "a"), ("eth0", "b")]);
        assert_eq!(check_rules(&migration).unwrap_err().reason, "InvalidHint");
    }

    #[test]
    fn a_provider_is_gated_by_what_its_status_says_and_by_nothing_else() {
        let provider = |status: serde_json::Value| {
            let mut provider = manifests::provider("a");
            provider.metadata.generation = Some(2);
            provider.status = serde_json::from_value(status).unwrap();
            unavailable(&provider)
        };
        let condition = |status: &str| {
            json!({
                "type": "ProviderAvailable", "status": status, "reason": "Down", "message": "no route",
                "lastTransitionTime": "2025-10-16T10:00:00Z"
            })
        };
        assert_eq!(provider(json!(null)), None);
        assert_eq!(provider(json!({"healthy": true})), None);
        assert_eq!(provider(json!({"conditions": [condition("True")]})), None);
        assert_eq!(provider(json!({"conditions": [condition("Unknown")]})), None);
        let down = provider(json!({"healthy": true, "conditions": [condition("False")]}));
        assert_eq!(down.as_deref(), Some("no route (Down)"));
        let sick = provider(json!({"healthy": false, "conditions": [condition("True")]}));
        assert!(sick.is_some_and(|text| text.contains("healthy")));
        let ours =
            provider(json!({"healthy": false, "healthCheckedBy": "vmferry", "conditions": [condition("False")]}));
        assert_eq!(ours, None, "the host is asked");
        let mut old = condition("False");
        old["observedGeneration"] = json!(1);
        assert_eq!(
            provider(json!({"healthy": false, "conditions": [old]})),
            None,
            "it was changed since"
        );
    }
}
