//! What the declared objects refer to.

use super::{ManifestError, Manifests, key_of, object};
use crate::{Key, Provider, VMMigration, VirtualMachine};

impl VMMigration {
    /// The source `VirtualMachine`.
    pub fn source_key(&self) -> Key {
        Key::new(&self.spec.source_namespace, &self.spec.source_name)
    }

    /// The target `Provider`.
    pub fn target_provider_key(&self) -> Key {
        let reference = &self.spec.target_provider_ref;
        Key::new(
            reference.namespace.clone().unwrap_or_else(|| key_of(self).namespace),
            &reference.name,
        )
    }

    /// The Secret of the staging storage, where one is named.
    pub fn storage_secret_key(&self) -> Option<Key> {
        let reference = self.spec.storage.credentials_secret_ref.as_ref()?;
        let namespace = reference.namespace.clone().unwrap_or_else(|| key_of(self).namespace);
        Some(Key::new(namespace, reference.name.clone()?))
    }
}

impl VirtualMachine {
    /// The `Provider` that it runs at.
    pub fn provider_key(&self) -> Key {
        let reference = &self.spec.provider_ref;
        Key::new(
            reference.namespace.clone().unwrap_or_else(|| key_of(self).namespace),
            &reference.name,
        )
    }
}

impl Provider {
    /// The Secret with its credentials, where one is named.
    pub fn secret_key(&self) -> Option<Key> {
        let reference = self.spec.credential_secret_ref.as_ref()?;
        let namespace = reference.namespace.clone().unwrap_or_else(|| key_of(self).namespace);
        Some(Key::new(namespace, reference.name.clone()?))
    }
}

impl Manifests {
    /// What `migrations` refer to and is declared neither here nor known elsewhere. Each says the field and the remedy.
    pub fn missing_references<'a>(
        &self,
        migrations: impl IntoIterator<Item = &'a Key>,
        known: &dyn KnownObjects,
    ) -> Vec<ManifestError> {
        let mut missing = Vec::new();
        for key in migrations {
            let Some(declared) = self.migrations.get(key) else {
                continue;
            };
            let found = self.missing_of(&declared.object, known);
            missing.extend(
                found
                    .into_iter()
                    .map(|detail| ManifestError::new(declared.origin.clone(), detail).of(object("VMMigration", key))),
            );
        }
        missing
    }

    fn missing_of(&self, migration: &VMMigration, known: &dyn KnownObjects) -> Vec<String> {
        let mut missing = Vec::new();
        let source = migration.source_key();
        match self
            .virtual_machines
            .get(&source)
            .map(|vm| vm.object.clone())
            .or_else(|| known.virtual_machine(&source))
        {
            None => missing.push(lost("spec.sourceName", "VirtualMachine", &source)),
            Some(vm) => {
                let field = format!("spec.providerRef of VirtualMachine {source}");
                self.missing_provider(&field, &vm.provider_key(), known, &mut missing);
            }
        }
        self.missing_provider(
            "spec.targetProviderRef",
            &migration.target_provider_key(),
            known,
            &mut missing,
        );
        if let Some(secret) = migration.storage_secret_key() {
            self.missing_secret("spec.storage.credentialsSecretRef", &secret, &mut missing);
        }
        missing
    }

    fn missing_provider(&self, field: &str, key: &Key, known: &dyn KnownObjects, missing: &mut Vec<String>) {
        match self
            .providers
            .get(key)
            .map(|provider| provider.object.clone())
            .or_else(|| known.provider(key))
        {
            None => missing.push(lost(field, "Provider", key)),
            Some(provider) => {
                if let Some(secret) = provider.secret_key() {
                    let field = format!("spec.credentialSecretRef of Provider {}", key_of(&provider));
                    self.missing_secret(&field, &secret, missing);
                }
            }
        }
    }

    fn missing_secret(&self, field: &str, key: &Key, missing: &mut Vec<String>) {
        if !self.secrets.contains_key(key) {
            missing.push(lost(field, "Secret", key));
        }
    }
}

/// Objects that are known from elsewhere: from an earlier command. Secrets never are.
pub trait KnownObjects {
    /// A virtual machine.
    fn virtual_machine(&self, key: &Key) -> Option<VirtualMachine>;
    /// A provider.
    fn provider(&self, key: &Key) -> Option<Provider>;
}

/// Nothing is known from elsewhere.
impl KnownObjects for () {
    fn virtual_machine(&self, _: &Key) -> Option<VirtualMachine> {
        None
    }

    fn provider(&self, _: &Key) -> Option<Provider> {
        None
    }
}

fn lost(field: &str, kind: &str, key: &Key) -> String {
    format!(
        "{field} names {kind} {key}, which no manifest declares: add it to the files given with -f, or correct the name"
    )
}
