//! The fake store: the resources, events, time, and who opens adapters.

use std::sync::Arc;

use async_trait::async_trait;
use vmferry_api::{Key, MigrationStorage, Phase, Provider, Secret, Time, VMMigration, VirtualMachine};
use vmferry_fault::Fault;
use vmferry_provider::Hypervisor;
use vmferry_staging::StagingStore;

use super::hosts::Host;
use super::staging::Staging;
use super::world::{State, World};
use crate::port::{Clock, Connector, Event, Events, Store, StoreError};

fn error(action: &'static str, object: &impl ToString) -> StoreError {
    StoreError {
        action,
        object: object.to_string(),
        detail: "planned".to_owned(),
        conflict: false,
    }
}

fn key_of(migration: &VMMigration) -> Key {
    Key::new(
        migration.metadata.namespace.clone().unwrap(),
        migration.metadata.name.clone().unwrap(),
    )
}

impl State {
    /// As a user does it: what has no finalizer is gone at once.
    pub(crate) fn delete(&mut self, key: &Key) {
        let now = self.time();
        let Some(migration) = self.migrations.get_mut(key) else {
            return;
        };
        if migration.metadata.finalizers.as_deref().unwrap_or_default().is_empty() {
            self.migrations.remove(key);
        } else {
            migration.metadata.deletion_timestamp.get_or_insert(now);
        }
    }

    /// As a user does it.
    pub(crate) fn annotate(&mut self, key: &Key, name: &str, value: &str) {
        if let Some(migration) = self.migrations.get_mut(key) {
            let annotations = migration.metadata.annotations.get_or_insert_default();
            annotations.insert(name.to_owned(), value.to_owned());
        }
    }

    pub(crate) fn time(&self) -> Time {
        Time(jiff::Timestamp::from_second(self.now).unwrap())
    }

    fn save(&mut self, new: &VMMigration) -> Result<(), StoreError> {
        let key = key_of(new);
        let Some(stored) = self.migrations.get_mut(&key) else {
            return Err(StoreError {
                conflict: true,
                ..error("save", &key)
            });
        };
        if let (Some(old), Some(new)) = (&stored.status, &new.status) {
            let back = old.progress > new.progress;
            let left = matches!(old.phase, Phase::Ready | Phase::Failed) && old.phase != new.phase;
            let again = new.earlier_attempts > old.earlier_attempts;
            if (back || left) && !again {
                self.violations.push(format!(
                    "{:?} {}% became {:?} {}%",
                    old.phase, old.progress, new.phase, new.progress
                ));
            }
        }
        stored.status.clone_from(&new.status);
        stored.metadata.finalizers.clone_from(&new.metadata.finalizers);
        stored.metadata.labels.clone_from(&new.metadata.labels);
        let last = stored.metadata.finalizers.as_deref().unwrap_or_default().is_empty();
        if last && stored.metadata.deletion_timestamp.is_some() {
            self.migrations.remove(&key);
        }
        Ok(())
    }
}

#[async_trait]
impl Store for World {
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError> {
        let found = |state: &mut State| Ok(state.migrations.get(key).cloned());
        self.call("store.migration", |_| error("read", key), found).await
    }

    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        let found = |state: &mut State| Ok(state.migrations.values().cloned().collect());
        self.call("store.migrations", |_| error("list", &"migrations"), found)
            .await
    }

    async fn save(&self, migration: &VMMigration) -> Result<(), StoreError> {
        let save = |state: &mut State| state.save(migration);
        self.call("store.save", |_| error("save", &key_of(migration)), save)
            .await
    }

    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        let found = |state: &mut State| Ok(state.vms.get(key).cloned());
        self.call("store.virtual_machine", |_| error("read", key), found).await
    }

    async fn create_virtual_machine(&self, vm: &VirtualMachine) -> Result<bool, StoreError> {
        let key = Key::new(
            vm.metadata.namespace.clone().unwrap(),
            vm.metadata.name.clone().unwrap(),
        );
        let create = |state: &mut State| {
            if state.no_namespace {
                return Err(StoreError {
                    detail: format!("namespaces {:?} not found", key.namespace),
                    ..error("create", &key)
                });
            }
            let new = !state.vms.contains_key(&key);
            state.vms.entry(key.clone()).or_insert_with(|| vm.clone());
            Ok(new)
        };
        self.call("store.create_virtual_machine", |_| error("create", &key), create)
            .await
    }

    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        let found = |state: &mut State| Ok(state.providers.get(key).cloned());
        self.call("store.provider", |_| error("read", key), found).await
    }

    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let found = |state: &mut State| Ok(state.secrets.get(key).cloned());
        self.call("store.secret", |_| error("read", key), found).await
    }
}

#[async_trait]
impl Connector for World {
    async fn hypervisor(
        &self,
        provider: &Provider,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error> {
        let name = provider.metadata.name.clone().unwrap();
        assert!(secret.is_some(), "the Provider names a Secret");
        let host = Host {
            world: self.clone(),
            name: name.clone(),
        };
        let fault = |permanent| {
            let kind = if permanent {
                vmferry_provider::Kind::Denied
            } else {
                vmferry_provider::Kind::Unreachable
            };
            Fault::new(kind, "connect to", name)
        };
        self.call("connect.hypervisor", fault, |_| {
            Ok(Arc::new(host) as Arc<dyn Hypervisor>)
        })
        .await
    }

    async fn staging(
        &self,
        storage: &MigrationStorage,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error> {
        assert_eq!(storage.credentials_secret_ref.is_some(), secret.is_some());
        let fault = |permanent| {
            let kind = if permanent {
                vmferry_staging::Kind::Denied
            } else {
                vmferry_staging::Kind::Unreachable
            };
            Fault::new(kind, "connect to", "staging")
        };
        let staging = Staging(self.clone());
        self.call("connect.staging", fault, |_| {
            Ok(Arc::new(staging) as Arc<dyn StagingStore>)
        })
        .await
    }
}

impl Clock for World {
    fn now(&self) -> Time {
        self.state().time()
    }
}

#[async_trait]
impl Events for World {
    async fn publish(&self, _: &VMMigration, event: Event) {
        let publish = |state: &mut State| {
            state.events.push(event);
            Ok::<_, ()>(())
        };
        let _ = self.call("events.publish", |_| (), publish).await;
    }
}
