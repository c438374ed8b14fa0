//! How a migration ended, in a few lines.

use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Phase, VMMigration};

use super::units;
use crate::drive::Ending;

/// The lines about one migration.
pub(super) fn lines(key: &Key, ending: Ending, migration: Option<&VMMigration>) -> Vec<String> {
    let status = migration
        .and_then(|migration| migration.status.clone())
        .unwrap_or_default();
    match (ending, migration) {
        (Ending::Gone, _) | (_, None) => vec![format!("{key}  deleted")],
        (Ending::Done(Phase::Ready), Some(migration)) => ready(key, migration),
        (Ending::Done(_), Some(_)) => vec![
            format!("{key}  Failed  {}", status.message.unwrap_or_default()),
            format!("  to try again: vmferry delete {key}, then the same command"),
        ],
        (Ending::Stopped, Some(_)) => vec![format!(
            "{key}  stopped in {:?} at {} %  {}",
            status.phase,
            status.progress,
            status.message.unwrap_or_default()
        )],
        (Ending::Lost, Some(_)) => vec![format!(
            "{key}  stopped in {:?}: its state cannot be written",
            status.phase
        )],
    }
}

fn ready(key: &Key, migration: &VMMigration) -> Vec<String> {
    let status = migration.status.clone().unwrap_or_default();
    let mut first = format!(
        "{key}  Ready  {} is now {} at {}",
        migration.spec.source_name,
        migration.spec.target_name,
        migration.target_provider_key()
    );
    let bytes = units::count(status.bytes_transferred);
    if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time) {
        let took = units::between(start, end);
        let rate = units::rate(bytes / took.as_secs().max(1));
        first = format!("{first}  {} in {}, {rate}", units::size(bytes), units::duration(took));
    }
    let mut lines = vec![first];
    for disk in &status.disks {
        if let Some(checksum) = &disk.checksum {
            lines.push(format!("  {}  {checksum}", disk.name));
        }
    }
    if status.disks.is_empty() {
        lines.extend(status.checksum.map(|checksum| format!("  {checksum}")));
    }
    debug_assert_eq!(*key, key_of(migration));
    lines
}
