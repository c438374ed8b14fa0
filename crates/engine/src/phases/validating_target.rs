//! ValidatingTarget: the VM is there, is made of the right things, and runs if it is to run.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::{PowerStateSpec, SourcePower};
use vmferry_provider::{Hardware, PowerState, Vm, VmId, VmSelector};

use super::creating;
use crate::failure::{Failure, Trouble};
use crate::port::FailureKind;
use crate::run::{Outcome, Run};
use crate::world::{Source, Target};

/// Hypervisors round memory, some to 4 MiB.
const MEMORY_SLACK: u64 = 4 << 20;

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        let source = run.source().await?;
        let target = run.target().await?;
        let selector = VmSelector {
            id: run.status.target_vm_id.clone(),
            name: run.spec().target_name.clone(),
        };
        let vm = find(&target, &selector).await?;
        let expected = creating::hardware(run, &source.vm().await?)?;
        compare(&expected, &vm)?;
        let mut power = vm.power;
        if wanted(run, &source).await? == PowerState::On && power == PowerState::Off {
            start(run, &target, &vm.id).await?;
            power = find(&target, &selector).await?.power;
            if power == PowerState::Off {
                let text = format!(
                    "VM {} on {} was started and is shut off again; look at its console and log there",
                    vm.name,
                    target.host.describe()
                );
                return Err(Failure::new(FailureKind::Retryable, "TargetNotRunning", text).into());
            }
        }
        let state = match power {
            PowerState::On => "runs",
            PowerState::Off => "is shut off",
        };
        Ok(Outcome::Done(
            "TargetValidated",
            format!("Target VM {} has the right hardware and {state}", vm.name),
        ))
    }
    .boxed()
}

async fn find(target: &Target, selector: &VmSelector) -> Result<Vm, Failure> {
    target.host.find_vm(selector).await.map_err(|fault| {
        let mut failure = Failure::target(&fault);
        if fault.kind() == vmferry_provider::Kind::NotFound {
            failure.reason = "TargetNotFound";
        }
        failure
    })
}

async fn start(run: &Run, target: &Target, vm: &VmId) -> Result<(), Failure> {
    let started = target.host.set_power(vm, &run.owner, PowerState::On).await;
    started.map_err(|fault| Failure::target(&fault))
}

/// What the target's VirtualMachine says, or else the source's, or else as the source was found.
pub(super) async fn wanted(run: &Run, source: &Source) -> Result<PowerState, Trouble> {
    let declared = run.ports.store.virtual_machine(&run.target_key()).await?;
    let declared = declared.and_then(|vm| vm.spec.power_state).or(source.power);
    Ok(match (declared, run.status.source_power_state) {
        (Some(PowerStateSpec::On), _) | (None, Some(SourcePower::On)) => PowerState::On,
        _ => PowerState::Off,
    })
}

/// Names every difference, so that one look is enough.
fn compare(expected: &Hardware, vm: &Vm) -> Result<(), Failure> {
    let found = &vm.hardware;
    let mut wrong = Vec::new();
    let mut differ = |what: &str, expected: String, found: String| {
        if expected != found {
            wrong.push(format!("{what} is {found} instead of {expected}"));
        }
    };
    differ("vCPUs", expected.vcpus.to_string(), found.vcpus.to_string());
    if expected.memory_bytes.abs_diff(found.memory_bytes) >= MEMORY_SLACK {
        differ(
            "memory",
            format!("{} bytes", expected.memory_bytes),
            format!("{} bytes", found.memory_bytes),
        );
    }
    let sizes = |hardware: &Hardware| {
        let sizes: Vec<_> = hardware.disks.iter().map(|disk| disk.capacity.to_string()).collect();
        format!("[{}]", sizes.join(", "))
    };
    differ("disk sizes", sizes(expected), sizes(found));
    let macs = |hardware: &Hardware| {
        let macs: Vec<_> = hardware.nics.iter().map(|nic| nic.mac.to_lowercase()).collect();
        format!("[{}]", macs.join(", "))
    };
    differ("MAC addresses", macs(expected), macs(found));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::permanent(
        "TargetMismatch",
        format!(
            "VM {} at the target is not as it was made: {}",
            vm.name,
            wrong.join("; ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifests;

    #[test]
    fn every_difference_is_named() {
        let expected = manifests::hardware(2, 2);
        let mut vm = Vm {
            id: VmId("1".into()),
            name: "web".into(),
            power: PowerState::On,
            hardware: expected.clone(),
        };
        vm.hardware.memory_bytes += 1 << 20;
        assert_eq!(compare(&expected, &vm), Ok(()));
        vm.hardware.vcpus += 1;
        vm.hardware.memory_bytes += 8 << 20;
        vm.hardware.disks.pop();
        vm.hardware.nics.swap(0, 1);
        let text = compare(&expected, &vm).unwrap_err().message;
        for part in ["vCPUs is", "memory is", "disk sizes is", "MAC addresses is"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
