//! The ports of the engine: where state lives, who moves the bytes, what time it is, who is told.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmferry_api::{Key, MigrationStorage, Provider, Secret, Time, VMMigration, VirtualMachine};
use vmferry_fault::Class;
use vmferry_provider::{FrozenId, Hypervisor, ImageFormat, Owner, VmSelector, VolumeId};
use vmferry_staging::limit::Bucket;
use vmferry_staging::{ObjectKey, StagingStore};

/// The resources and their durable state.
#[async_trait]
pub trait Store: Send + Sync {
    /// A migration with its status as last saved.
    async fn migration(&self, key: &Key) -> Result<Option<VMMigration>, StoreError>;

    /// All migrations, for admission.
    async fn migrations(&self) -> Result<Vec<VMMigration>, StoreError>;

    /// Saves status, finalizers and labels, all or nothing: after a crash, the next read gives the old or the new state,
    /// whole. An equal state is not written. A migration that is being deleted and has lost its last finalizer disappears.
    async fn save(&self, migration: &VMMigration) -> Result<(), StoreError>;

    /// A virtual machine.
    async fn virtual_machine(&self, key: &Key) -> Result<Option<VirtualMachine>, StoreError>;

    /// Adds a virtual machine unless one of that name exists, which is left as it is; says whether it was added.
    async fn create_virtual_machine(&self, vm: &VirtualMachine) -> Result<bool, StoreError>;

    /// A provider.
    async fn provider(&self, key: &Key) -> Result<Option<Provider>, StoreError>;

    /// A secret.
    async fn secret(&self, key: &Key) -> Result<Option<Secret>, StoreError>;
}

/// The store failed.
#[derive(Debug, Error)]
#[error("cannot {action} {object}: {detail}")]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// On which object.
    pub object: String,
    /// What went wrong.
    pub detail: String,
    /// Whether the object changed under us, so that reading it again helps.
    pub conflict: bool,
}

/// Opens adapters. Chosen in the wiring; may keep connections.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The hypervisor of a provider.
    async fn hypervisor(
        &self,
        provider: &Provider,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn Hypervisor>, vmferry_provider::Error>;

    /// The staging store of a migration.
    async fn staging(
        &self,
        storage: &MigrationStorage,
        secret: Option<&Secret>,
    ) -> Result<Arc<dyn StagingStore>, vmferry_staging::Error>;

    /// The rate that all transfers to and from staging share, if there is one.
    fn bandwidth(&self) -> Option<Arc<Bucket>> {
        None
    }
}

/// Time, injectable.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now, in whole seconds as the API has it.
    fn now(&self) -> Time;
}

/// Who is told of milestones.
#[async_trait]
pub trait Events: Send + Sync {
    /// Publishes an event about a migration. Best effort: a failure here never stops a migration.
    async fn publish(&self, migration: &VMMigration, event: Event);
}

/// A milestone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Its reason, one of [`vmferry_api::names::event`].
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Worth a look.
    Warning,
    /// It failed.
    Error,
}

/// Runs the data phases: in this process, or as a Job on a cluster.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Starts a job, or does nothing where the job of that id is under way.
    async fn start(&self, job: &Job) -> Result<(), ExecutorError>;

    /// How a job is doing. A job that this executor never heard of, or lost, is [`JobState::Absent`].
    async fn observe(&self, id: &JobId) -> Result<JobState, ExecutorError>;

    /// Stops a job and waits until it moves no byte any more. Absent is success.
    async fn cancel(&self, id: &JobId) -> Result<(), ExecutorError>;
}

/// The executor itself failed (not the job). Always worth another try.
#[derive(Debug, Error)]
#[error("cannot {action} the job {job}: {detail}")]
pub struct ExecutorError {
    /// What was tried.
    pub action: &'static str,
    /// On which job.
    pub job: JobId,
    /// What went wrong.
    pub detail: String,
    /// Whether it goes away by itself: whoever is asked is busy, or cannot be reached.
    pub passes: bool,
}

/// The name of a job: what it does, for which migration, in which attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A data phase, with everything that whoever runs it needs to know, and no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id: `export-<tag>-<attempt>`, `import-<tag>-<attempt>`.
    pub id: JobId,
    /// The migration.
    pub migration: Key,
    /// The migration's UID.
    pub owner: Owner,
    /// Which way.
    pub direction: Direction,
    /// The staging storage, its Secret named with its namespace.
    pub storage: MigrationStorage,
    /// Most bytes per second to and from staging, of this job by itself.
    #[serde(default)]
    pub bandwidth_limit: Option<NonZeroU64>,
    /// The disks, in order.
    pub disks: Vec<DiskJob>,
}

/// Which way the bytes go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// From the source's frozen disks into staging.
    Export {
        /// The source provider.
        provider: Key,
        /// The VM.
        vm: VmSelector,
        /// The frozen state that is read.
        frozen: FrozenId,
    },
    /// From staging into the target's volumes.
    Import {
        /// The target provider.
        provider: Key,
        /// Whether each volume that can be is read once more and compared.
        readback: bool,
    },
}

/// One disk of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskJob {
    /// Its name at the source.
    pub name: String,
    /// Virtual size of the source's disk in bytes.
    pub capacity: u64,
    /// The staged object.
    pub object: ObjectKey,
    /// Format of the staged object.
    pub staged_format: ImageFormat,
    /// Import only: where it goes.
    pub target: Option<DiskTarget>,
}

/// Where a disk goes, and what it must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskTarget {
    /// The volume.
    pub volume: VolumeId,
    /// Its format.
    pub format: ImageFormat,
    /// Its virtual size in bytes, at least the source's.
    pub capacity: u64,
    /// SHA-256 of the staged object, as recorded by the export.
    pub checksum: String,
    /// Content digest of the disk, as recorded by the export.
    pub content_digest: String,
}

/// How a job is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    /// There is no such job.
    Absent,
    /// It moves bytes. One entry for each disk, in order.
    Running(Vec<DiskProgress>),
    /// All disks are done. One entry for each disk, in order.
    Succeeded(Vec<DiskReport>),
    /// It ended without success.
    Failed(JobFailure),
}

/// How far a disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskProgress {
    /// Bytes of the staged object that are done, those of earlier attempts included.
    pub done: u64,
    /// Length of the staged object, 0 while it is not known.
    pub total: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
}

/// A disk that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// Length of the staged object in bytes.
    pub len: u64,
    /// SHA-256 of the staged object.
    pub checksum: String,
    /// Content digest of the disk.
    pub content_digest: String,
    /// Bytes that this job itself moved, those of earlier attempts not included.
    pub moved: u64,
    /// Import only: whether the target fetched the staged object by itself, so that none of it came through the job.
    #[serde(default)]
    pub fetched: bool,
}

/// Why a job ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFailure {
    /// What it means for the migration.
    pub kind: FailureKind,
    /// What was tried, on what, the answer, and what to do next.
    pub message: String,
}

/// What a failure means for the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The same phase may succeed later, from where it stopped.
    Retryable,
    /// It never will.
    Permanent,
    /// vmferry is wrong.
    Bug,
    /// The frozen state is gone: snapshot again, export again.
    FrozenStateGone,
    /// The staged object is not what was exported: export again.
    StagedCorrupt,
}

impl From<Class> for FailureKind {
    fn from(class: Class) -> Self {
        match class {
            Class::Retryable => Self::Retryable,
            Class::Permanent => Self::Permanent,
            Class::Bug => Self::Bug,
        }
    }
}
