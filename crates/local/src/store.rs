//! The engine's `Store` on a state directory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use vmferry_api::manifest::{KnownObjects, key_of};
use vmferry_api::{Key, Provider, Resource, ResourceExt, Secret, VMMigration, VirtualMachine};
use vmferry_engine::port::{Store, StoreError};

use crate::events::Observer;
use crate::{Error, Record, StateDir, file};

/// The resources in a state directory.
///
/// All of them are in memory, because nobody else may change them; what changes is written before it is seen.
pub struct LocalStore {
    pub(crate) dir: Arc<StateDir>,
    pub(crate) state: Mutex<State>,
    /// One write at a time, so that what is written last is also what is seen last.
    writing: tokio::sync::Mutex<()>,
    observer: Option<Arc<dyn Observer>>,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub migrations: BTreeMap<Key, Record>,
    pub virtual_machines: BTreeMap<Key, VirtualMachine>,
    pub providers: BTreeMap<Key, Provider>,
    /// Never written.
    pub secrets: BTreeMap<Key, Secret>,
}

impl LocalStore {
    /// Reads everything in the directory. `observer` hears of every save.
    ///
    /// # Errors
    /// Where a file cannot be read; it is named, and nothing is changed.
    pub fn load(dir: Arc<StateDir>, observer: Option<Arc<dyn Observer>>) -> Result<Self, Error> {
        let mut state = State::default();
        for record in read_all::<Record>(&dir, "migrations")? {
            state.migrations.insert(key_of(&record.migration), record);
        }
        for vm in read_all::<VirtualMachine>(&dir, "virtualmachines")? {
            state.virtual_machines.insert(key_of(&vm), vm);
        }
        for provider in read_all::<Provider>(&dir, "providers")? {
            state.providers.insert(key_of(&provider), provider);
        }
        Ok(Self {
            dir,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::default(),
            observer,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Arc<StateDir> {
        &self.dir
    }

    /// All migrations, with where their manifests were.
    pub fn records(&self) -> Vec<Record> {
        self.state().migrations.values().cloned().collect()
    }

    /// One migration, with where its manifests were.
    pub fn record(&self, key: &Key) -> Option<Record> {
        self.state().migrations.get(key).cloned()
    }

    /// Gives the Secrets that are known in this command. They stay in memory.
    pub fn set_secrets(&self, secrets: impl IntoIterator<Item = (Key, Secret)>) {
        self.state().secrets.extend(secrets);
    }

    /// Marks a migration as being deleted; the engine then cleans up. One that never began disappears at once.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn mark_deleted(&self, key: &Key, now: vmferry_api::Time) -> Result<(), StoreError> {
        let Some(mut record) = self.record(key) else {
            return Ok(());
        };
        record.migration.metadata.deletion_timestamp.get_or_insert(now);
        self.put(key, record).await
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record, or removes it where it is to disappear; then lets it be seen.
    async fn put(&self, key: &Key, record: Record) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        let gone = is_gone(&record.migration);
        let path = self
            .dir
            .path("migrations", key, "json")
            .map_err(|error| failed("save", key, &error))?;
        let log = self
            .dir
            .path("events", key, "jsonl")
            .map_err(|error| failed("save", key, &error))?;
        let written = record.clone();
        self.blocking("save", key, move || {
            if gone {
                // The log goes last: a log without its migration is taken over by the next one of that name.
                file::remove(&path)?;
                return file::remove(&log);
            }
            file::replace(&path, &written)
        })
        .await?;
        if let Some(observer) = &self.observer {
            observer.saved(&record.migration);
        }
        let mut state = self.state();
        if gone {
            state.migrations.remove(key);
        } else {
            state.migrations.insert(key.clone(), record);
        }
        Ok(())
    }

    async fn blocking(
        &self,
        action: &'static str,
        key: &Key,
        work: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<(), StoreError> {
        if !self.dir.writable() {
            return Err(failed(action, key, &"the state directory was opened to look at"));
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| failed(action, key, &error)),
            Err(error) => Err(failed(action, key, &error)),
        }
    }
}

/// Whether nothing keeps a migration that is being deleted.
fn is_gone(migration: &VMMigration) -> bool {
    let held = migration
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| !finalizers.is_empty());
    migration.metadata.deletion_timestamp.is_some() && !held
}

fn read_all<T: DeserializeOwned>(dir: &StateDir, kind: &str) -> Result<Vec<T>, Error> {
    file::list(&dir.folder(kind))?
        .iter()
        .map(|path| file::read(path))
        .collect()
}

fn failed(action: &'static str, key: &Key, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        action,
        object: key.to_string(),
        detail: detail.to_string(),
        conflict: false,
    }
}

/// Writes a resource that is not a migration.
pub(crate) fn keep<T: Serialize + Resource>(dir: &StateDir, kind: &str, object: &T) -> Result<(), Error> {
    file::replace(&dir.path(kind, &key_of(object), "json")?, object)
}

#[async_trait]
impl Store for LocalStore {
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError> {
        Ok(self.record(key).map(|record| record.migration))
    }

    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        Ok(self
            .state()
            .migrations
            .values()
            .map(|record| record.migration.clone())
            .collect())
    }

    async fn save(&self, migration: &VMMigration) -> Result<(), StoreError> {
        let key = key_of(migration);
        let Some(old) = self.record(&key).filter(|old| old.migration.uid() == migration.uid()) else {
            let detail = "it was deleted, or made anew under the same name";
            return Err(StoreError {
                conflict: true,
                ..failed("save", &key, &detail)
            });
        };
        let mut record = old.clone();
        record.migration.status.clone_from(&migration.status);
        record
            .migration
            .metadata
            .finalizers
            .clone_from(&migration.metadata.finalizers);
        record.migration.metadata.labels.clone_from(&migration.metadata.labels);
        if record == old && !is_gone(&record.migration) {
            return Ok(());
        }
        self.put(&key, record).await
    }

    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        Ok(self.state().virtual_machines.get(key).cloned())
    }

    async fn create_virtual_machine(&self, vm: &VirtualMachine) -> Result<bool, StoreError> {
        let _turn = self.writing.lock().await;
        let key = key_of(vm);
        if self.state().virtual_machines.contains_key(&key) {
            return Ok(false);
        }
        let (dir, written) = (Arc::clone(&self.dir), vm.clone());
        self.blocking("create VirtualMachine", &key, move || {
            keep(&dir, "virtualmachines", &written)
        })
        .await?;
        self.state().virtual_machines.insert(key, vm.clone());
        Ok(true)
    }

    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        Ok(self.state().providers.get(key).cloned())
    }

    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        Ok(self.state().secrets.get(key).cloned())
    }
}

impl KnownObjects for LocalStore {
    fn virtual_machine(&self, key: &Key) -> Option<VirtualMachine> {
        self.state().virtual_machines.get(key).cloned()
    }

    fn provider(&self, key: &Key) -> Option<Provider> {
        self.state().providers.get(key).cloned()
    }
}
