//! A store and events that are nowhere: for looking without leaving a trace.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use vmferry_api::manifest::{Manifests, key_of};
use vmferry_api::{Key, Provider, Secret, VMMigration, VirtualMachine};
use vmferry_engine::port::{Event, Events, Executor, ExecutorError, Job, JobId, JobState, Store, StoreError};

/// The manifests and nothing else, in memory.
pub struct Scratch {
    manifests: Mutex<Manifests>,
}

impl Scratch {
    /// The manifests, each migration with a UID that is its own only here.
    pub fn new(mut manifests: Manifests) -> Self {
        for (number, declared) in manifests.migrations.values_mut().enumerate() {
            declared.object.metadata.uid = Some(format!("00000000-0000-4000-8000-{number:012x}"));
        }
        Self {
            manifests: Mutex::new(manifests),
        }
    }

    fn manifests(&self) -> MutexGuard<'_, Manifests> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Scratch {
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError> {
        Ok(self
            .manifests()
            .migrations
            .get(key)
            .map(|declared| declared.object.clone()))
    }

    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError> {
        Ok(self
            .manifests()
            .migrations
            .values()
            .map(|declared| declared.object.clone())
            .collect())
    }

    async fn save(&self, migration: &VMMigration) -> Result<(), StoreError> {
        if let Some(declared) = self.manifests().migrations.get_mut(&key_of(migration)) {
            declared.object = migration.clone();
        }
        Ok(())
    }

    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError> {
        Ok(self
            .manifests()
            .virtual_machines
            .get(key)
            .map(|declared| declared.object.clone()))
    }

    async fn create_virtual_machine(&self, _: &VirtualMachine) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError> {
        Ok(self
            .manifests()
            .providers
            .get(key)
            .map(|declared| declared.object.clone()))
    }

    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        Ok(self
            .manifests()
            .secrets
            .get(key)
            .map(|declared| declared.object.clone()))
    }
}

#[async_trait]
impl Events for Scratch {
    async fn publish(&self, _: &VMMigration, _: Event) {}
}

/// Moves nothing, ever.
#[async_trait]
impl Executor for Scratch {
    async fn start(&self, job: &Job) -> Result<(), ExecutorError> {
        let detail = "nothing is moved while manifests are only looked at".to_owned();
        Err(ExecutorError {
            action: "start",
            job: job.id.clone(),
            detail,
            passes: false,
        })
    }

    async fn observe(&self, _: &JobId) -> Result<JobState, ExecutorError> {
        Ok(JobState::Absent)
    }

    async fn cancel(&self, _: &JobId) -> Result<(), ExecutorError> {
        Ok(())
    }
}
