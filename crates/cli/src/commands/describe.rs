//! `vmferry describe`.

use std::time::Duration;

use vmferry_api::manifest::key_of;
use vmferry_api::{DiskStatus, Time, VMMigration, VMMigrationStatus};
use vmferry_local::{LocalEvents, LoggedEvent};

use crate::args::Describe;
use crate::exit::{Code, Failure};
use crate::output::{self, units};

/// Shows everything about a migration.
pub fn describe(args: &Describe) -> Result<Code, Failure> {
    let store = args.state.look()?;
    let record = args.namespace.find(&store, &args.name)?;
    let migration = &record.migration;
    let uid = migration.metadata.uid.clone().unwrap_or_default();
    let events = LocalEvents::of(store.dir(), &key_of(migration), &uid).map_err(Failure::failed)?;
    let manifests: Vec<_> = record.manifests.iter().map(|path| path.display().to_string()).collect();
    let events: Vec<_> = events.into_iter().map(Happened::from).collect();
    show(migration, Some(manifests.join(", ")), &events);
    Ok(Code::Success)
}

/// An event, wherever it was kept.
pub struct Happened {
    /// When.
    pub time: Time,
    /// Its type.
    pub kind: String,
    /// Its reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl From<LoggedEvent> for Happened {
    fn from(logged: LoggedEvent) -> Self {
        Self {
            time: logged.time,
            kind: format!("{:?}", logged.event.event_type),
            reason: logged.event.reason,
            message: logged.event.message,
        }
    }
}

/// Prints everything about a migration, and what happened to it, oldest first.
pub fn show(migration: &VMMigration, manifests: Option<String>, events: &[Happened]) {
    let status = migration.status.clone().unwrap_or_default();
    head(migration, &status);
    field("Manifests", manifests);
    disks(&status.disks);
    conditions(&status);
    list_events(events);
}

fn field(name: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        output::line(&format!("{:<14} {value}", format!("{name}:")));
    }
}

fn head(migration: &VMMigration, status: &VMMigrationStatus) {
    let key = key_of(migration);
    let spec = &migration.spec;
    field("Name", Some(key.name));
    field("Namespace", Some(key.namespace));
    field("UID", migration.metadata.uid.clone());
    field("Created", migration.metadata.creation_timestamp.as_ref().map(time));
    field("Deleting", migration.metadata.deletion_timestamp.as_ref().map(time));
    field("Source", Some(migration.source_key().to_string()));
    field(
        "Target",
        Some(format!("{} at {}", spec.target_name, migration.target_provider_key())),
    );
    field(
        "Storage",
        spec.storage
            .path
            .clone()
            .or_else(|| spec.storage.bucket.clone())
            .or_else(|| spec.storage.endpoint.clone()),
    );
    field("Phase", Some(format!("{:?}, {} %", status.phase, status.progress)));
    field("Message", status.message.clone());
    field("Started", status.start_time.as_ref().map(time));
    field("Completed", status.completion_time.as_ref().map(time));
    if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time) {
        field("Took", Some(units::duration(units::between(start, end))));
    }
    field("Snapshot", status.snapshot_id.clone());
    field("Target VM", status.target_vm_id.clone());
    field("Checksum", status.checksum.clone());
    field(
        "Transferred",
        status
            .bytes_transferred
            .map(|bytes| units::size(units::count(Some(bytes)))),
    );
    field(
        "Retries",
        status
            .retry_attempts
            .map(|retries| format!("{retries} of {}", spec.retry_policy.max_attempts)),
    );
    field("Next retry", status.next_retry_time.as_ref().map(time));
}

fn time(time: &Time) -> String {
    time.0.to_string()
}

fn disks(disks: &[DiskStatus]) {
    if disks.is_empty() {
        return;
    }
    output::line("\nDisks:");
    for disk in disks {
        let size = |bytes: Option<i64>| bytes.map(|bytes| units::size(units::count(Some(bytes))));
        let facts = [
            ("format", disk.format.clone()),
            ("capacity", size(disk.capacity_bytes)),
            ("staged", size(disk.staged_bytes)),
            ("done", size(disk.bytes_transferred)),
            (
                "rate",
                disk.bytes_per_second.map(|rate| units::rate(units::count(Some(rate)))),
            ),
            (
                "left",
                disk.eta_seconds
                    .map(|eta| units::duration(Duration::from_secs(units::count(Some(eta))))),
            ),
            ("url", disk.url.clone()),
            ("checksum", disk.checksum.clone()),
            ("content", disk.content_digest.clone()),
            ("volume", disk.target_volume.clone()),
        ];
        output::line(&format!("  {}", disk.name));
        for (name, value) in facts {
            if let Some(value) = value {
                output::line(&format!("    {name:<9} {value}"));
            }
        }
    }
}

fn conditions(status: &VMMigrationStatus) {
    if status.conditions.is_empty() {
        return;
    }
    output::line("\nConditions:");
    for condition in &status.conditions {
        output::line(&format!(
            "  {:<14} {:<6} {}  {}: {}",
            condition.type_,
            condition.status,
            time(&condition.last_transition_time),
            condition.reason,
            condition.message
        ));
    }
}

fn list_events(events: &[Happened]) {
    if events.is_empty() {
        return;
    }
    output::line("\nEvents:");
    for event in events {
        output::line(&format!(
            "  {}  {:<8} {:<21} {}",
            time(&event.time),
            event.kind,
            event.reason,
            event.message
        ));
    }
}
