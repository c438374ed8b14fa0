//! What became of the VMs that migrations touch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Phase, VMMigration, VirtualMachine};
use vmferry_engine::port::Store;
use vmferry_fault::Fault;
use vmferry_provider::{Hypervisor, Kind, PowerState, Vm, VmSelector};

use super::ownership::{Field, may_write};
use super::write::Says;
use super::{Keeper, limited, reason};
use crate::call::find;
use crate::store::named;

const READY: &str = "Ready";
const FIELDS: [Field; 4] = [
    Field::Plain("powerState"),
    Field::Plain("phase"),
    Field::Plain("ips"),
    Field::Condition(READY),
];
/// How long after a migration's end its VMs are still looked at: until what it left to the host has settled.
const AFTERWARDS: SignedDuration = SignedDuration::from_mins(10);
/// How long a guest may take to say its addresses. The rest is not worth waiting longer for that.
const ADDRESSES: Duration = Duration::from_secs(10);

/// Which VM is meant, as far as a migration recorded its id.
type Recorded = Option<String>;

/// A VM as its host has it.
struct Found {
    vm: Vm,
    /// Its addresses; `None` where they could not be found out this time.
    addresses: Option<Vec<IpAddr>>,
}

impl Keeper {
    /// The VirtualMachines of migrations that are under way or ended a moment ago.
    pub(super) fn machines(&self) -> Vec<(Recorded, Arc<VirtualMachine>)> {
        let mut touched = BTreeMap::new();
        let now = Timestamp::now();
        for migration in self.store.migrations.all() {
            if is_current(&migration, now) {
                touched.extend(touches(&migration));
            }
        }
        let known = |(key, id)| Some((id, self.store.virtual_machines.get(&key)?));
        touched.into_iter().filter_map(known).collect()
    }

    /// Asks a VM's host how it is, and says so in its status.
    pub(super) async fn machine(&self, known: &VirtualMachine, recorded: Recorded) {
        let key = key_of(known);
        let api = self.api::<VirtualMachine>(&key.namespace);
        let vm = match find("read", named::<VirtualMachine>(&key), api.get(&key.name)).await {
            Ok(Some(vm)) if may_write(self.mode, &vm.metadata, &FIELDS) => vm,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "a VirtualMachine is not looked at"),
        };
        let answer = match limited("find", &key, self.look(&key, &vm, recorded)).await {
            Ok((host, vm)) => {
                let addresses = addresses(&*host, &vm).await;
                Ok(Found { vm, addresses })
            }
            Err(fault) => Err(fault),
        };
        let (fields, says) = told(&vm, answer);
        let old = vm.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let condition = says.condition(old, vm.metadata.generation);
        self.write(&key, &vm, fields, condition).await;
    }

    /// The VM, and the host that has it.
    async fn look(
        &self,
        key: &Key,
        vm: &VirtualMachine,
        recorded: Recorded,
    ) -> Result<(Arc<dyn Hypervisor>, Vm), Fault<Kind>> {
        let reference = &vm.spec.provider_ref;
        let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
        let provider_key = Key::new(namespace, &reference.name);
        let failed = |detail: String| Fault::new(Kind::Unreachable, "find VM", key.to_string()).detail(detail);
        let provider = self.store.provider(&provider_key).await;
        let provider = provider
            .map_err(|error| failed(error.to_string()))?
            .ok_or_else(|| failed(format!("there is no Provider {provider_key}")))?;
        let host = self.open(&provider_key, &provider).await?;
        let id = vm.status.as_ref().and_then(|status| status.id.clone());
        let selector = VmSelector {
            id: id.or(recorded),
            name: key.name.clone(),
        };
        let found = host.find_vm(&selector).await?;
        Ok((host, found))
    }
}

/// The addresses of a VM that was found; `None` where they could not be found out this time.
async fn addresses(host: &dyn Hypervisor, vm: &Vm) -> Option<Vec<IpAddr>> {
    if vm.power == PowerState::Off {
        return Some(Vec::new());
    }
    match tokio::time::timeout(ADDRESSES, host.addresses(&vm.id)).await {
        Ok(Ok(addresses)) => return Some(addresses),
        Ok(Err(error)) => tracing::debug!(vm = vm.name, %error, "its addresses are not known"),
        Err(_) => tracing::debug!(vm = vm.name, "its addresses are not known: no answer in time"),
    }
    None
}

/// Whether a migration is under way or ended a moment ago.
fn is_current(migration: &VMMigration, now: Timestamp) -> bool {
    let Some(status) = &migration.status else {
        return false;
    };
    match &status.completion_time {
        Some(end) => now.duration_since(end.0) < AFTERWARDS,
        None => status.phase != Phase::Pending,
    }
}

/// The VirtualMachines of a migration, with the ids that it recorded.
fn touches(migration: &VMMigration) -> Vec<(Key, Recorded)> {
    let Some(status) = &migration.status else {
        return Vec::new();
    };
    let spec = migration.effective_spec();
    let source = Key::new(&spec.source_namespace, &spec.source_name);
    let mut touched = vec![(source, status.source_vm_id.clone())];
    if let Some(target) = &status.target_vm_ref {
        let namespace = target.namespace.as_deref().unwrap_or(&spec.source_namespace);
        touched.push((Key::new(namespace, &target.name), status.target_vm_id.clone()));
    }
    touched
}

/// What the status is to say; null is for what it is not to have. Where the host did not answer, what was known of the VM stays.
fn told(vm: &VirtualMachine, answer: Result<Found, Fault<Kind>>) -> (Map<String, Value>, Says) {
    let says = |status, reason, message| Says {
        kind: READY,
        status,
        reason,
        message,
    };
    match answer {
        Ok(Found { vm: found, addresses }) => {
            let (power, phase) = match found.power {
                PowerState::On => ("On", "Running"),
                PowerState::Off => ("Off", "Stopped"),
            };
            let ips = match addresses {
                Some(addresses) if addresses.is_empty() => Value::Null,
                Some(addresses) => json!(addresses),
                None => kept(vm).remove("ips").unwrap_or_default(),
            };
            let fields = Map::from_iter([
                ("id".to_owned(), json!(found.id.0)),
                ("powerState".to_owned(), json!(power)),
                ("phase".to_owned(), json!(phase)),
                ("ips".to_owned(), ips),
            ]);
            let message = format!("VM {} is {}", found.name, phase.to_lowercase());
            (fields, says("True", "VMFound", message))
        }
        Err(fault) => {
            let status = if fault.kind() == Kind::NotFound {
                "False"
            } else {
                "Unknown"
            };
            (kept(vm), says(status, reason(fault.kind()), fault.to_string()))
        }
    }
}

/// What the status says of the VM so far.
fn kept(vm: &VirtualMachine) -> Map<String, Value> {
    let status = serde_json::to_value(&vm.status).unwrap_or_default();
    let field = |name: &str| Some((name.to_owned(), status.get(name)?.clone()));
    ["id", "powerState", "phase", "ips"]
        .into_iter()
        .filter_map(field)
        .collect()
}

#[cfg(test)]
mod tests {
    use vmferry_provider::{Firmware, Hardware, VmId};

    use super::*;

    fn migration(status: &Value) -> VMMigration {
        let value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration", "metadata": {"name": "m", "namespace": "n"},
            "spec": {
                "sourceName": "a", "sourceNamespace": "s", "targetProviderRef": {"name": "p"}, "targetName": "b",
                "storage": {"type": "nfs", "path": "/m"}
            },
            "status": status
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn vms_are_looked_at_while_a_migration_is_under_way_and_for_a_moment_after() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        for (status, current) in [
            (json!({"phase": "Pending"}), false),
            (json!({"phase": "Transferring"}), true),
            (
                json!({"phase": "Ready", "completionTime": "1970-01-01T00:55:00Z"}),
                true,
            ),
            (
                json!({"phase": "Failed", "completionTime": "1970-01-01T00:45:00Z"}),
                false,
            ),
        ] {
            assert_eq!(is_current(&migration(&status), now), current, "{status}");
        }
    }

    #[test]
    fn source_and_declared_target_are_touched() {
        let ended = json!({
            "phase": "Ready", "sourceVMID": "1", "targetVMID": "2", "targetVMRef": {"name": "b", "namespace": "t"}
        });
        let touched = touches(&migration(&ended));
        let expected = [
            (Key::new("s", "a"), Some("1".to_owned())),
            (Key::new("t", "b"), Some("2".to_owned())),
        ];
        assert_eq!(touched, expected);
        assert_eq!(
            touches(&migration(&json!({"phase": "Validating"}))),
            [(Key::new("s", "a"), None)]
        );
    }

    #[test]
    fn a_host_that_does_not_answer_takes_nothing_back() {
        let value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VirtualMachine", "metadata": {"name": "a"},
            "spec": {"providerRef": {"name": "p"}},
            "status": {"id": "1", "powerState": "On", "phase": "Running", "ips": ["192.0.2.1"]}
        });
        let vm: VirtualMachine = serde_json::from_value(value).unwrap();
        let known = json!({"id": "1", "powerState": "On", "phase": "Running", "ips": ["192.0.2.1"]});
        for (kind, status) in [(Kind::Unreachable, "Unknown"), (Kind::NotFound, "False")] {
            let (fields, says) = told(&vm, Err(Fault::new(kind, "find", "VM a")));
            assert_eq!(Value::Object(fields), known);
            assert_eq!(says.status, status);
        }
    }

    #[test]
    fn addresses_are_those_of_now_or_those_that_were_known() {
        let value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VirtualMachine", "metadata": {"name": "a"},
            "spec": {"providerRef": {"name": "p"}}, "status": {"ips": ["192.0.2.1"]}
        });
        let vm: VirtualMachine = serde_json::from_value(value).unwrap();
        for (addresses, ips) in [
            (
                Some(&["192.0.2.7", "2001:db8::7"][..]),
                json!(["192.0.2.7", "2001:db8::7"]),
            ),
            (Some(&[]), Value::Null),
            (None, json!(["192.0.2.1"])),
        ] {
            let found = Found {
                vm: found(),
                addresses: addresses.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect()),
            };
            let (fields, says) = told(&vm, Ok(found));
            assert_eq!(fields["ips"], ips);
            assert_eq!((&fields["phase"], says.status), (&json!("Running"), "True"));
        }
    }

    fn found() -> Vm {
        Vm {
            id: VmId("1".to_owned()),
            name: "a".to_owned(),
            power: PowerState::On,
            hardware: Hardware {
                firmware: Firmware::Bios,
                machine: None,
                arch: "x86_64".to_owned(),
                accel: None,
                vcpus: 1,
                cpu_model: None,
                memory_bytes: 1 << 30,
                disks: Vec::new(),
                nics: Vec::new(),
                guest_agent: true,
                guest_os: None,
            },
        }
    }
}
