//! `VMMigration`: what is reported.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AcceptedSpec, ObjectReference};

/// Where a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Migration created, awaiting processing.
    #[default]
    Pending,
    /// Validating source and target.
    Validating,
    /// Creating source VM snapshot.
    Snapshotting,
    /// Exporting disk from source.
    Exporting,
    /// Uploading to storage.
    Transferring,
    /// Converting disk format.
    Converting,
    /// Downloading from storage.
    Importing,
    /// Creating target VM.
    Creating,
    /// Validating target VM.
    ValidatingTarget,
    /// Migration completed successfully.
    Ready,
    /// Migration failed.
    Failed,
}

/// Status of a migration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VMMigrationStatus {
    /// Current migration phase.
    pub phase: Phase,
    /// Migration progress percentage (0-100).
    #[schemars(range(min = 0, max = 100))]
    pub progress: u8,
    /// Detailed status conditions for each phase.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the migration started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the migration completed (success or failure).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// ID of the source VM snapshot created for the migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Reference to the export task on the source provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_task_ref: Option<String>,
    /// Reference to the import task on the target provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_task_ref: Option<String>,
    /// URL where the disk (the first, where there are several) is stored in intermediate storage.
    #[serde(rename = "intermediateStorageURL", skip_serializing_if = "Option::is_none")]
    pub intermediate_storage_url: Option<String>,
    /// SHA256 checksum of the migrated disk (the first, where there are several), as staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Total bytes transferred during the migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_transferred: Option<i64>,
    /// Number of retry attempts made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_attempts: Option<u32>,
    /// Timestamp of the last retry attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_retry_time: Option<Time>,

    /// Additive: when the next retry is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_retry_time: Option<Time>,
    /// Additive: one sentence on where the migration is or why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Additive: the generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Additive: the target VirtualMachine resource.
    #[serde(rename = "targetVMRef", skip_serializing_if = "Option::is_none")]
    pub target_vm_ref: Option<ObjectReference>,
    /// Additive: the target VM's id at its hypervisor.
    #[serde(rename = "targetVMID", skip_serializing_if = "Option::is_none")]
    pub target_vm_id: Option<String>,
    /// Additive: the source VM's id at its hypervisor, so that another VM of its name is never taken for it.
    #[serde(rename = "sourceVMID", skip_serializing_if = "Option::is_none")]
    pub source_vm_id: Option<String>,
    /// Additive: the source VM's power state when the migration started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_power_state: Option<SourcePower>,
    /// Additive: current rate of all disks together, as people read it: `118.2MB/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Additive: the spec's source, target and storage as they were when the migration left Pending. It goes by these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_spec: Option<AcceptedSpec>,
    /// Additive: how many attempts were made before the annotation `migration.virtrigaud.io/retry` started it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier_attempts: Option<u32>,
    /// Additive: the value of the annotation `migration.virtrigaud.io/retry` that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<String>,
    /// Additive: the value of the annotation `migration.virtrigaud.io/cancel` that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_cancel: Option<String>,
    /// Additive: the disks, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskStatus>,
}

/// A power state as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourcePower {
    /// It ran.
    On,
    /// It was shut off.
    Off,
}

/// Status of one disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskStatus {
    /// Its name at the source.
    pub name: String,
    /// Format of the staged object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Virtual size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<i64>,
    /// Length of the staged object in bytes, as soon as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_bytes: Option<i64>,
    /// Bytes of the staged object moved in the current direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_transferred: Option<i64>,
    /// Current rate in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// Seconds left at the current rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Where it is staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// SHA-256 of the staged object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Content digest of the disk, independent of its format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<String>,
    /// The target volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_volume: Option<String>,
}
