//! From references in the manifest to open adapters. What is missing is named, with its field.

use std::sync::Arc;

use vmferry_api::{Key, MigrationStorage, PowerStateSpec, Provider, ProviderType, Secret, VirtualMachine};
use vmferry_provider::{Hypervisor, Vm, VmSelector};
use vmferry_staging::StagingStore;

use crate::failure::{Failure, Trouble};
use crate::run::Run;

/// The side that the VM leaves.
pub(crate) struct Source {
    pub key: Key,
    pub resource: Provider,
    pub host: Arc<dyn Hypervisor>,
    pub selector: VmSelector,
    /// What the VirtualMachine says of its power state.
    pub power: Option<PowerStateSpec>,
}

impl Source {
    /// The VM as it is now.
    pub(crate) async fn vm(&self) -> Result<Vm, Failure> {
        let found = self.host.find_vm(&self.selector).await;
        found.map_err(|fault| Failure::source(&fault))
    }
}

/// The side at which it arrives.
pub(crate) struct Target {
    pub key: Key,
    pub resource: Provider,
    pub host: Arc<dyn Hypervisor>,
}

impl Run {
    /// The source VM's resource.
    pub(crate) fn source_key(&self) -> Key {
        Key::new(&self.spec().source_namespace, &self.spec().source_name)
    }

    /// The target VM's resource.
    pub(crate) fn target_key(&self) -> Key {
        let spec = self.spec();
        let namespace = spec.target_namespace.as_deref().unwrap_or(&spec.source_namespace);
        Key::new(namespace, &spec.target_name)
    }

    /// Opens the source.
    pub(crate) async fn source(&self) -> Result<Source, Trouble> {
        let vm_key = self.source_key();
        let vm = self.ports.store.virtual_machine(&vm_key).await?.ok_or_else(|| {
            Failure::missing(
                "SourceNotFound",
                format!(
                    "cannot find VirtualMachine {vm_key}, named by spec.sourceNamespace and spec.sourceName; \
                     apply it, or correct the two fields"
                ),
            )
        })?;
        let field = format!("spec.providerRef of VirtualMachine {vm_key}");
        let key = provider_key(&vm_key, &vm);
        let (resource, host) = self.provider(&key, &field, Failure::source).await?;
        Ok(Source {
            key,
            resource,
            host,
            selector: VmSelector {
                id: self
                    .status
                    .source_vm_id
                    .clone()
                    .or_else(|| vm.status.and_then(|status| status.id)),
                name: vm_key.name,
            },
            power: vm.spec.power_state,
        })
    }

    /// Opens the target.
    pub(crate) async fn target(&self) -> Result<Target, Trouble> {
        let key = self.resolve(&self.spec().target_provider_ref);
        let (resource, host) = self.provider(&key, "spec.targetProviderRef", Failure::target).await?;
        Ok(Target { key, resource, host })
    }

    /// Opens the staging store.
    pub(crate) async fn staging(&self) -> Result<Arc<dyn StagingStore>, Trouble> {
        let storage = self.storage();
        let secret = match &storage.credentials_secret_ref {
            None => None,
            Some(reference) => {
                self.secret(
                    reference.name.as_deref(),
                    reference.namespace.as_deref(),
                    &self.key.namespace,
                    "spec.storage.credentialsSecretRef",
                )
                .await?
            }
        };
        let opened = self.ports.connector.staging(&storage, secret.as_ref()).await;
        opened.map_err(|fault| Failure::staging(&fault).into())
    }

    /// The storage of the spec, its Secret named with its namespace.
    pub(crate) fn storage(&self) -> MigrationStorage {
        let mut storage = self.spec().storage.clone();
        if let Some(reference) = &mut storage.credentials_secret_ref {
            reference.namespace.get_or_insert_with(|| self.key.namespace.clone());
        }
        storage
    }

    async fn provider(
        &self,
        key: &Key,
        field: &str,
        failure: fn(&vmferry_provider::Error) -> Failure,
    ) -> Result<(Provider, Arc<dyn Hypervisor>), Trouble> {
        let provider = self.ports.store.provider(key).await?.ok_or_else(|| {
            Failure::missing(
                "ProviderNotFound",
                format!("cannot find Provider {key}, named by {field}; apply it, or correct the reference"),
            )
        })?;
        let secret = match &provider.spec.credential_secret_ref {
            None => None,
            Some(reference) => {
                let field = format!("spec.credentialSecretRef of Provider {key}");
                self.secret(
                    reference.name.as_deref(),
                    reference.namespace.as_deref(),
                    &key.namespace,
                    &field,
                )
                .await?
            }
        };
        let opened = self.ports.connector.hypervisor(&provider, secret.as_ref()).await;
        let host = opened.map_err(|fault| failure(&fault))?;
        Ok((provider, host))
    }

    async fn secret(
        &self,
        name: Option<&str>,
        namespace: Option<&str>,
        default: &str,
        field: &str,
    ) -> Result<Option<Secret>, Trouble> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let key = Key::new(namespace.unwrap_or(default), name);
        let secret = self.ports.store.secret(&key).await?.ok_or_else(|| {
            Failure::missing(
                "SecretNotFound",
                format!("cannot find Secret {key}, named by {field}; apply it, or correct the reference"),
            )
        })?;
        Ok(Some(secret))
    }
}

/// The Provider of a VirtualMachine.
pub(crate) fn provider_key(vm_key: &Key, vm: &VirtualMachine) -> Key {
    let reference = &vm.spec.provider_ref;
    Key::new(
        reference.namespace.as_deref().unwrap_or(&vm_key.namespace),
        &reference.name,
    )
}

/// A provider's type, as labels have it.
pub(crate) fn type_name(kind: ProviderType) -> &'static str {
    match kind {
        ProviderType::Vsphere => "vsphere",
        ProviderType::Libvirt => "libvirt",
        ProviderType::Proxmox => "proxmox",
        ProviderType::Firecracker => "firecracker",
        ProviderType::Qemu => "qemu",
    }
}
