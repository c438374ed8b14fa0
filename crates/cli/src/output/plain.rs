//! Plain lines: time, migration, phase, message. For pipes, files and logs of CI.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vmferry_api::manifest::key_of;
use vmferry_api::names::event;
use vmferry_api::{DiskStatus, Key, Phase, VMMigration};
use vmferry_engine::port::Event;
use vmferry_local::Observer;

use super::{Reporter, line, summary, units};
use crate::drive::Ending;

/// A disk's progress is told at every tenth of it, or after this long.
const INTERVAL: Duration = Duration::from_secs(10);

/// Plain lines.
#[derive(Default)]
pub(super) struct Plain {
    told: Mutex<HashMap<Key, Told>>,
}

/// What was told of a migration last.
#[derive(Default)]
struct Told {
    message: Option<String>,
    disks: HashMap<(Phase, String), (u64, Instant)>,
}

impl Plain {
    fn tell(key: &Key, phase: Phase, text: &str) {
        let now = Timestamp::now();
        line(&format!("{now:.0} {key} {phase:?}: {text}"));
    }

    /// The disks whose progress is to be told now.
    fn due<'a>(told: &mut Told, phase: Phase, disks: &'a [DiskStatus]) -> Vec<&'a DiskStatus> {
        let now = Instant::now();
        let is_due = |disk: &&DiskStatus| {
            let tenth = units::percent(units::count(disk.bytes_transferred), units::count(disk.staged_bytes)) / 10;
            let last = told.disks.get(&(phase, disk.name.clone()));
            let due = last.map_or(disk.bytes_transferred.is_some(), |(last_tenth, at)| {
                tenth > *last_tenth || (*last_tenth < 10 && now.duration_since(*at) >= INTERVAL)
            });
            if due {
                told.disks.insert((phase, disk.name.clone()), (tenth, now));
            }
            due
        };
        disks.iter().filter(is_due).collect()
    }
}

/// `disk vda 45 %, 4.5 GiB of 10.0 GiB, 120.0 MiB/s, 46s left`
pub fn disk_line(disk: &DiskStatus) -> String {
    let (done, total) = (units::count(disk.bytes_transferred), units::count(disk.staged_bytes));
    let mut facts = Vec::new();
    if total > 0 {
        facts.push(format!("{} %", units::percent(done, total)));
        facts.push(format!("{} of {}", units::size(done), units::size(total)));
    } else {
        facts.push(units::size(done));
    }
    if let Some(rate) = disk.bytes_per_second.filter(|rate| *rate > 0) {
        facts.push(units::rate(units::count(Some(rate))));
    }
    if let Some(eta) = disk.eta_seconds {
        let left = Duration::from_secs(units::count(Some(eta)));
        facts.push(format!("{} left", units::duration(left)));
    }
    format!("disk {} {}", disk.name, facts.join(", "))
}

/// Whether bytes move in this phase.
pub fn moves_bytes(phase: Phase) -> bool {
    matches!(phase, Phase::Transferring | Phase::Importing)
}

impl Observer for Plain {
    fn saved(&self, migration: &VMMigration) {
        let Some(status) = &migration.status else { return };
        let key = key_of(migration);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.entry(key.clone()).or_default();
        if moves_bytes(status.phase) {
            for disk in Self::due(told, status.phase, &status.disks) {
                Self::tell(&key, status.phase, &disk_line(disk));
            }
        } else if told.message != status.message {
            told.message.clone_from(&status.message);
            Self::tell(&key, status.phase, status.message.as_deref().unwrap_or_default());
        }
    }

    fn event(&self, migration: &VMMigration, event: &Event) {
        if event.reason == event::TRANSFER_PROGRESS {
            return;
        }
        let key = key_of(migration);
        let phase = migration.status.as_ref().map(|status| status.phase).unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.entry(key.clone()).or_default();
        if told.message.as_ref() != Some(&event.message) {
            Self::tell(&key, phase, &event.message);
        }
    }
}

impl Reporter for Plain {
    fn note(&self, key: Option<&Key>, text: &str) {
        let now = Timestamp::now();
        match key {
            Some(key) => line(&format!("{now:.0} {key} {text}")),
            None => line(&format!("{now:.0} {text}")),
        }
    }

    fn summary(&self, endings: &[(Key, Ending, Option<VMMigration>)]) {
        for (key, ending, migration) in endings {
            for text in summary::lines(key, *ending, migration.as_ref()) {
                line(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(done: i64) -> DiskStatus {
        DiskStatus {
            name: "vda".to_owned(),
            bytes_transferred: Some(done),
            staged_bytes: Some(1000),
            bytes_per_second: Some(2048),
            eta_seconds: Some(90),
            ..DiskStatus::default()
        }
    }

    #[test]
    fn a_line_has_bytes_rate_and_time_left() {
        assert_eq!(
            disk_line(&disk(500)),
            "disk vda 50 %, 500 B of 1000 B, 2.0 KiB/s, 1m30s left"
        );
    }

    #[test]
    fn progress_is_told_at_every_tenth_only() {
        let mut told = Told::default();
        let told_at: Vec<_> = (0..=1000)
            .filter(|done| !Plain::due(&mut told, Phase::Transferring, &[disk(*done)]).is_empty())
            .collect();
        assert_eq!(told_at, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    }
}
