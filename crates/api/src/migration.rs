//! `VMMigration`: what the user asks for.

use k8s_openapi::api::core::v1::SecretReference;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GoDuration, VMMigrationStatus};

/// A VM migration from a source provider to a target provider using intermediate storage.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.virtrigaud.io",
    version = "v1beta1",
    kind = "VMMigration",
    plural = "vmmigrations",
    shortname = "vmmig",
    category = "virtrigaud",
    namespaced,
    status = "VMMigrationStatus",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Progress",
        type_ = "integer",
        json_path = ".status.progress",
        description = "Percent of the whole migration"
    ),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.sourceName"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetName"),
    printcolumn(
        name = "Rate",
        type_ = "string",
        json_path = ".status.rate",
        description = "Current rate of all disks together"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "From",
        type_ = "string",
        json_path = ".metadata.labels.migration\\.virtrigaud\\.io/source-provider",
        description = "Type of the source provider",
        priority = 1
    ),
    printcolumn(
        name = "To",
        type_ = "string",
        json_path = ".metadata.labels.migration\\.virtrigaud\\.io/target-provider",
        description = "Type of the target provider",
        priority = 1
    ),
    printcolumn(name = "Checksum", type_ = "string", json_path = ".status.checksum", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VMMigrationSpec {
    /// The name of the source VirtualMachine resource to migrate.
    #[schemars(length(min = 1, max = 253))]
    pub source_name: String,
    /// The namespace of the source VirtualMachine.
    #[schemars(length(min = 1, max = 63))]
    pub source_namespace: String,
    /// Reference to the target Provider resource.
    pub target_provider_ref: ObjectReference,
    /// The name for the migrated VM on the target provider.
    #[schemars(length(min = 1, max = 63))]
    pub target_name: String,
    /// The namespace for the target VM. Default: same as sourceNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub target_namespace: Option<String>,
    /// Provider-specific storage hint: libvirt pool, Proxmox storage, vSphere datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub target_storage_hint: Option<String>,
    /// Target disk format. Default: the provider's native format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_disk_format: Option<DiskFormat>,
    /// Overrides the resource allocation for the target VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_resource_hints: Option<ResourceHints>,
    /// Network configuration for the target VM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub target_network_hints: Vec<NetworkHint>,
    /// Intermediate storage for the disk transfer.
    pub storage: MigrationStorage,
    /// Cleanup behaviour after the migration.
    #[serde(default)]
    pub cleanup_policy: CleanupPolicy,
    /// Automatic retry of failed migrations.
    #[serde(default)]
    pub retry_policy: RetryPolicy,
}

/// A reference to an object, in the migration's own namespace unless it names another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectReference {
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU copy-on-write.
    Qcow2,
    /// VMware virtual disk.
    Vmdk,
    /// Plain bytes.
    Raw,
}

/// Overrides of the target VM's resources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceHints {
    /// Number of vCPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub cpu: Option<u32>,
    /// Memory in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 268_435_456))]
    pub memory: Option<u64>,
    /// Disk size in GB. Grows the first disk; never shrinks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub disk: Option<u64>,
}

/// What a network interface of the target VM is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkHint {
    /// The interface: `eth0` is the first one.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Network name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub network: Option<String>,
    /// Bridge name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub bridge: Option<String>,
}

/// Intermediate storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStorage {
    /// Which kind of storage.
    #[serde(rename = "type")]
    pub storage_type: StorageType,
    /// S3: bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub bucket: Option<String>,
    /// S3: region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub region: Option<String>,
    /// S3: endpoint (optional for AWS); HTTP: URL; NFS: server (optional).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub endpoint: Option<String>,
    /// NFS: path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
}

/// A kind of intermediate storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// S3 and compatible.
    S3,
    /// HTTP server.
    Http,
    /// NFS.
    Nfs,
}

/// What is removed after a successful migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CleanupPolicy {
    /// Delete the files in intermediate storage.
    pub delete_intermediate: bool,
    /// Delete the source VM's snapshot.
    pub delete_snapshot: bool,
    /// Delete the source VM. DANGEROUS.
    pub delete_source: bool,
}

impl Default for CleanupPolicy {
    fn default() -> Self {
        Self {
            delete_intermediate: true,
            delete_snapshot: true,
            delete_source: false,
        }
    }
}

/// How failures are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPolicy {
    /// Maximum number of retry attempts.
    #[schemars(range(min = 0, max = 1000))]
    pub max_attempts: u32,
    /// Initial backoff duration between retries.
    pub backoff_duration: GoDuration,
    /// Maximum backoff duration.
    pub max_backoff_duration: GoDuration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let minutes = |n: u64| GoDuration(std::time::Duration::from_secs(n * 60));
        Self {
            max_attempts: 3,
            backoff_duration: minutes(5),
            max_backoff_duration: minutes(30),
        }
    }
}
