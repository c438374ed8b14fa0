//! Names that are part of the API: labels, annotations, the finalizer, condition types, event reasons.

/// The API group.
pub const GROUP: &str = "infra.virtrigaud.io";
/// The API version.
pub const VERSION: &str = "v1beta1";
/// Keeps a `VMMigration` until what it made is gone.
pub const FINALIZER: &str = "vmmigration.infra.virtrigaud.io/cleanup";
/// Label: the kind of migration, in the user's own words (`upgrade`). Carried to the target VirtualMachine.
pub const LABEL_TYPE: &str = "migration.virtrigaud.io/type";
/// Label: the source provider's type.
pub const LABEL_SOURCE_PROVIDER: &str = "migration.virtrigaud.io/source-provider";
/// Label: the target provider's type.
pub const LABEL_TARGET_PROVIDER: &str = "migration.virtrigaud.io/target-provider";

/// Label of what runs for a migration on a cluster: the migration's UID.
pub const LABEL_UID: &str = "migration.virtrigaud.io/uid";

/// Condition of a `Provider`: whether it can be used.
pub const PROVIDER_AVAILABLE: &str = "ProviderAvailable";

/// What [`ProviderStatus::health_checked_by`](crate::ProviderStatus::health_checked_by) says where it is we who look.
pub const HEALTH_CHECKER: &str = "vmferry";

/// Annotation: who asked for the migration. Carried to the target VirtualMachine, as are the next two.
pub const ANNOTATION_REQUESTOR: &str = "migration.virtrigaud.io/requestor";
/// Annotation: why.
pub const ANNOTATION_REASON: &str = "migration.virtrigaud.io/reason";
/// Annotation: the ticket that it belongs to.
pub const ANNOTATION_TICKET: &str = "migration.virtrigaud.io/ticket";

/// Annotation: a value that was not seen before asks for another try: a retry that is scheduled is due at once, and a
/// migration that failed starts again from Pending. Any text will do; a time is a good one.
pub const ANNOTATION_RETRY: &str = "migration.virtrigaud.io/retry";
/// Annotation: a value that was not seen before ends the migration: what it made is undone, and it is Failed with the reason
/// `Cancelled`. One that is Ready stays so.
pub const ANNOTATION_CANCEL: &str = "migration.virtrigaud.io/cancel";

/// Annotation: at how many bytes per second a migration's disks are moved at most, as a [`ByteRate`](crate::ByteRate). A change
/// counts from the next transfer on.
pub const ANNOTATION_BANDWIDTH_LIMIT: &str = "migration.virtrigaud.io/bandwidth-limit";

/// Condition types.
pub mod condition {
    /// Source and target validation complete.
    pub const VALIDATED: &str = "Validated";
    /// Source VM snapshot created.
    pub const SNAPSHOTTED: &str = "Snapshotted";
    /// Disk exported from source.
    pub const EXPORTED: &str = "Exported";
    /// The upload under way (as in the reference's examples).
    pub const TRANSFERRING: &str = "Transferring";
    /// Disk uploaded to storage.
    pub const TRANSFERRED: &str = "Transferred";
    /// Disk format converted.
    pub const CONVERTED: &str = "Converted";
    /// Disk downloaded from storage.
    pub const IMPORTED: &str = "Imported";
    /// Target VM created.
    pub const CREATED: &str = "Created";
    /// Migration completed.
    pub const READY: &str = "Ready";
    /// Migration failed.
    pub const FAILED: &str = "Failed";
}

/// Event reasons.
pub mod event {
    /// Source VM validation started.
    pub const VALIDATION_STARTED: &str = "ValidationStarted";
    /// Source VM and target provider validated.
    pub const VALIDATION_SUCCESSFUL: &str = "ValidationSuccessful";
    /// Snapshot created.
    pub const SNAPSHOT_CREATED: &str = "SnapshotCreated";
    /// Disk export started.
    pub const EXPORT_STARTED: &str = "ExportStarted";
    /// Disk export completed.
    pub const EXPORT_COMPLETED: &str = "ExportCompleted";
    /// Upload to storage started.
    pub const TRANSFER_STARTED: &str = "TransferStarted";
    /// Upload progress.
    pub const TRANSFER_PROGRESS: &str = "TransferProgress";
    /// Upload completed.
    pub const TRANSFER_COMPLETED: &str = "TransferCompleted";
    /// Download from storage started.
    pub const IMPORT_STARTED: &str = "ImportStarted";
    /// Download completed.
    pub const IMPORT_COMPLETED: &str = "ImportCompleted";
    /// Target VM created successfully.
    pub const VM_CREATED: &str = "VMCreated";
    /// Migration completed successfully.
    pub const MIGRATION_COMPLETED: &str = "MigrationCompleted";
    /// Migration failed, retry scheduled.
    pub const RETRY_SCHEDULED: &str = "RetryScheduled";
    /// Maximum retry attempts exceeded.
    pub const MAX_RETRIES_EXCEEDED: &str = "MaxRetriesExceeded";
    /// Migration failed.
    pub const MIGRATION_FAILED: &str = "MigrationFailed";
    /// Additive: the spec was changed where it may not be any more.
    pub const SPEC_CHANGE_IGNORED: &str = "SpecChangeIgnored";
}
