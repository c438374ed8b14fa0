//! The engine's [`Store`] on an API server.
//!
//! Reads come out of the caches, which know what this process wrote; what a cache does not have is asked for, so that a
//! Provider that was applied a moment ago is found. Secrets are asked for each time. Writes carry UID and version of what
//! they were decided on: where anybody else wrote meanwhile, nothing is written and the step is done again.

mod difference;

use std::sync::Arc;

use async_trait::async_trait;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use vmferry_api::manifest::key_of;
use vmferry_api::names::{GROUP, VERSION};
use vmferry_api::{Key, Provider, Secret, VMMigration, VirtualMachine};
use vmferry_engine::port::{Store, StoreError};

use self::difference::Difference;
use crate::cache::{Cache, Cached, Change};
use crate::call::{CallError, call, find};
use crate::lease::Leadership;

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "vmferry";

/// Condition: whether the object parses. It is never seen by the engine, and gone once the object does.
pub(crate) const ACCEPTED: &str = "Accepted";

/// How many migrations are saved at once. The others wait here, where they are in nobody's way, and not at the API server,
/// which has the lease to renew.
const WRITERS: usize = 8;

/// Who hears of what is saved: the state before, and after.
pub trait Observer: Send + Sync {
    /// A migration was saved.
    fn saved(&self, before: &VMMigration, after: &VMMigration);
}

/// The resources on an API server.
pub struct KubeStore {
    client: Client,
    leadership: Leadership,
    writers: Semaphore,
    observers: Vec<Arc<dyn Observer>>,
    pub(crate) migrations: Arc<Cache<VMMigration>>,
    pub(crate) virtual_machines: Arc<Cache<VirtualMachine>>,
    pub(crate) providers: Arc<Cache<Provider>>,
}

impl KubeStore {
    /// A store with empty caches, which writes only for as long as `leadership` holds.
    pub fn new(client: Client, leadership: Leadership, observers: Vec<Arc<dyn Observer>>) -> Self {
        Self {
            client,
            leadership,
            writers: Semaphore::new(WRITERS),
            observers,
            migrations: Arc::default(),
            virtual_machines: Arc::default(),
            providers: Arc::default(),
        }
    }

    /// A migration as it was last seen or written.
    pub fn get(&self, key: &Key) -> Option<Arc<VMMigration>> {
        self.migrations.get(key)
    }

    /// Keeps the caches up to date, of one namespace or of all, and tells of every change of a migration. Never ends.
    pub async fn watch(&self, namespace: Option<&str>, changed: impl Fn(Change) + Send) {
        let client = || self.client.clone();
        tokio::join!(
            self.migrations.run(client(), namespace, changed),
            self.virtual_machines.run(client(), namespace, |_| {}),
            self.providers.run(client(), namespace, |_| {}),
        );
    }

    /// Waits until all objects were seen once.
    pub async fn synced(&self) {
        tokio::join!(
            self.migrations.synced(),
            self.virtual_machines.synced(),
            self.providers.synced()
        );
    }

    /// Whether all objects were seen once.
    pub fn is_synced(&self) -> bool {
        self.migrations.is_synced() && self.virtual_machines.is_synced() && self.providers.is_synced()
    }

    fn api<K: Cached>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Out of the cache, or from the server.
    async fn lookup<K: Cached>(&self, cache: &Cache<K>, key: &Key) -> Result<Option<K>, StoreError> {
        if let Some(object) = cache.get(key) {
            return Ok(Some((*object).clone()));
        }
        let api = self.api::<K>(&key.namespace);
        Ok(find("read", named::<K>(key), api.get(&key.name)).await?)
    }

    /// What is known of a migration, if that is what a step was decided on.
    fn base(&self, key: &Key, migration: &VMMigration) -> Result<Arc<VMMigration>, StoreError> {
        let detail = if self.leadership.holds() {
            let known = self.migrations.get(key).filter(|known| {
                let (known, given) = (&known.metadata, &migration.metadata);
                known.uid == given.uid && known.resource_version == given.resource_version
            });
            match known {
                Some(known) => return Ok(known),
                None => "it changed or was deleted meanwhile",
            }
        } else {
            "this process does not lead any more"
        };
        Err(StoreError {
            action: "save",
            object: named::<VMMigration>(key),
            detail: detail.to_owned(),
            conflict: true,
        })
    }

    /// Writes finalizers and labels.
    async fn save_metadata(&self, key: &Key, base: &VMMigration, patch: Value) -> Result<VMMigration, CallError> {
        let body = json!({ "metadata": merge(fence(base), patch) });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api::<VMMigration>(&key.namespace);
        let patch = Patch::Merge(&body);
        let saved = api.patch(&key.name, &params, &patch);
        call("save", named::<VMMigration>(key), saved).await
    }

    /// Writes the status, all of it: what is left out goes.
    async fn save_status(
        &self,
        key: &Key,
        base: &VMMigration,
        status: Option<&vmferry_api::VMMigrationStatus>,
    ) -> Result<VMMigration, CallError> {
        let name = json!({ "name": key.name, "namespace": key.namespace });
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": VMMigration::kind(&()),
            "metadata": merge(fence(base), name),
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api::<VMMigration>(&key.namespace);
        let patch = Patch::Apply(&body);
        let saved = api.patch_status(&key.name, &params, &patch);
        call("save the status of", named::<VMMigration>(key), saved).await
    }

    /// Does the writes that are needed, and lets the caches know.
    async fn write(&self, key: &Key, base: &VMMigration, new: &VMMigration) -> Result<(), CallError> {
        let differs = Difference::between(base, new);
        let mut current = base.clone();
        // The finalizer first: nothing is recorded, and so nothing is made, without it.
        if let Some(patch) = differs.metadata {
            current = self.save_metadata(key, &current, patch).await?;
            if is_gone(&current) {
                self.migrations
                    .forget(key, current.metadata.uid.as_deref().unwrap_or_default());
                return Ok(());
            }
            self.migrations.wrote(current.clone());
        }
        if differs.status {
            let saved = self.save_status(key, &current, new.status.as_ref()).await?;
            self.migrations.wrote(saved);
        }
        Ok(())
    }

    /// Asks the server how a migration is, so that the next step does not start from what is known to be old.
    async fn refresh(&self, key: &Key, uid: &str) {
        let api = self.api::<VMMigration>(&key.namespace);
        match find("read", named::<VMMigration>(key), api.get(&key.name)).await {
            Ok(Some(now)) => self.migrations.wrote(now),
            Ok(None) => self.migrations.forget(key, uid),
            // The watch will bring it.
            Err(error) => tracing::debug!(%error, "a migration that changed could not be read again"),
        }
    }

    /// The status that a VirtualMachine is declared with. It is a resource of its own, which a create passes over.
    async fn declare_status(&self, key: &Key, vm: &VirtualMachine) -> Result<(), CallError> {
        let Some(status) = &vm.status else {
            return Ok(());
        };
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": VirtualMachine::kind(&()),
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api::<VirtualMachine>(&key.namespace);
        let patch = Patch::Apply(&body);
        let saved = api.patch_status(&key.name, &params, &patch);
        let saved = call("save the status of", named::<VirtualMachine>(key), saved).await?;
        self.virtual_machines.wrote(saved);
        Ok(())
    }
}

impl KubeStore {
    /// One that is there, and that the same migration made, may lack the status that comes after it.
    async fn declare_again(&self, key: &Key, vm: &VirtualMachine) -> Result<(), StoreError> {
        let made_by = |vm: &VirtualMachine| {
            vm.spec
                .imported_disk
                .as_ref()
                .and_then(|disk| disk.migration_ref.clone())
        };
        let Some(found) = self.lookup(&self.virtual_machines, key).await? else {
            return Ok(());
        };
        let has_id = found.status.as_ref().is_some_and(|status| status.id.is_some());
        if has_id || made_by(&found).is_none() || made_by(&found) != made_by(vm) {
            return Ok(());
        }
        Ok(self.declare_status(key, vm).await?)
    }
}

/// How messages name an object.
pub(crate) fn named<K: Resource<DynamicType = ()>>(key: &Key) -> String {
    format!("{} {key}", K::kind(&()))
}

/// What keeps a write from another object of that name, and from one that changed.
fn fence(base: &VMMigration) -> Value {
    json!({ "uid": base.metadata.uid, "resourceVersion": base.metadata.resource_version })
}

/// The fields of both.
fn merge(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

/// A migration without what is not the engine's.
fn ours(migration: &VMMigration) -> VMMigration {
    let mut migration = migration.clone();
    if let Some(status) = &mut migration.status {
        status.conditions.retain(|condition| condition.type_ != ACCEPTED);
    }
    migration
}

/// Whether nothing keeps a migration that is being deleted.
fn is_gone(migration: &VMMigration) -> bool {
    let finalizers = migration.metadata.finalizers.as_deref().unwrap_or_default();
    migration.metadata.deletion_timestamp.is_some() && finalizers.is_empty()
}

#[async_trait]
impl Store for KubeStore {
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError> {
        Ok(self.migrations.get(key).map(|migration| ours(&migration)))
    }

    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        let all = self.migrations.all();
        Ok(all.iter().map(|migration| ours(migration)).collect())
    }

    async fn save(&self, migration: &VMMigration) -> Result<(), StoreError> {
        // It is never closed.
        let _turn = self.writers.acquire().await;
        let key = key_of(migration);
        let uid = migration.metadata.uid.as_deref().unwrap_or_default();
        let base = match self.base(&key, migration) {
            Ok(base) => base,
            Err(error) => {
                self.refresh(&key, uid).await;
                return Err(error);
            }
        };
        if let Err(error) = self.write(&key, &base, migration).await {
            let conflict = error.is_conflict() || error.is_not_found();
            if conflict {
                self.refresh(&key, uid).await;
            }
            return Err(StoreError {
                conflict,
                ..error.into()
            });
        }
        for observer in &self.observers {
            observer.saved(&base, migration);
        }
        Ok(())
    }

    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        self.lookup(&self.virtual_machines, key).await
    }

    async fn create_virtual_machine(&self, vm: &VirtualMachine) -> Result<bool, StoreError> {
        let key = key_of(vm);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let api = self.api::<VirtualMachine>(&key.namespace);
        let created = api.create(&params, vm);
        match call("create", named::<VirtualMachine>(&key), created).await {
            Ok(created) => self.virtual_machines.wrote(created),
            Err(error) if error.is_conflict() => {
                self.declare_again(&key, vm).await?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.declare_status(&key, vm).await?;
        Ok(true)
    }

    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        self.lookup(&self.providers, key).await
    }

    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        Ok(find("read", named::<Secret>(key), api.get(&key.name)).await?)
    }
}
