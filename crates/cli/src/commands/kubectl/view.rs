//! How far migrations are, as text.

use std::time::Duration;

use vmferry_api::manifest::key_of;
use vmferry_api::{DiskStatus, VMMigration};

use crate::output::{disk_line, moves_bytes, units};

/// A table of migrations: a line for each, and one for each disk that moves.
pub fn table<'a>(migrations: impl IntoIterator<Item = &'a VMMigration>, namespaces: bool) -> Vec<Vec<String>> {
    let mut header = vec!["NAME", "PHASE", "PROGRESS", "DISK", "DONE", "RATE", "LEFT", "MESSAGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
    rows.extend(
        migrations
            .into_iter()
            .flat_map(|migration| block(migration, namespaces)),
    );
    rows
}

/// The lines of one migration.
fn block(migration: &VMMigration, namespaces: bool) -> Vec<Vec<String>> {
    let key = key_of(migration);
    let status = migration.status.clone().unwrap_or_default();
    let mut head = vec![
        key.name,
        format!("{:?}", status.phase),
        format!("{} %", status.progress),
    ];
    if namespaces {
        head.insert(0, key.namespace);
    }
    let moving = moving(migration);
    if moving.is_empty() {
        let none = ["-", "-", "-", "-"].map(str::to_owned);
        let message = status.message.unwrap_or_else(|| "-".to_owned());
        return vec![head.into_iter().chain(none).chain([message]).collect()];
    }
    let blank = vec![String::new(); head.len()];
    let lines = moving.iter().enumerate().map(|(index, each)| {
        let head = if index == 0 { head.clone() } else { blank.clone() };
        head.into_iter().chain(disk(each)).collect()
    });
    lines.collect()
}

/// The disks that move now: none where the migration waits, or has come to its end.
fn moving(migration: &VMMigration) -> &[DiskStatus] {
    match &migration.status {
        Some(status) if moves_bytes(status.phase) && status.next_retry_time.is_none() => &status.disks,
        _ => &[],
    }
}

/// Name, done, rate, left.
fn disk(disk: &DiskStatus) -> [String; 4] {
    let (done, total) = (units::count(disk.bytes_transferred), units::count(disk.staged_bytes));
    let none = || "-".to_owned();
    let done = match total {
        0 => units::size(done),
        _ => format!("{} % of {}", units::percent(done, total), units::size(total)),
    };
    let rate = disk
        .bytes_per_second
        .map_or_else(none, |rate| units::rate(units::count(Some(rate))));
    let left = disk.eta_seconds.map_or_else(none, |seconds| {
        units::duration(Duration::from_secs(units::count(Some(seconds))))
    });
    [disk.name.clone(), done, rate, left]
}

/// One migration in one line, for where lines are not drawn over.
pub fn line(migration: &VMMigration) -> String {
    let status = migration.status.clone().unwrap_or_default();
    let disks: Vec<String> = moving(migration).iter().map(disk_line).collect();
    let what = if disks.is_empty() {
        status.message.unwrap_or_default()
    } else {
        disks.join("; ")
    };
    let text = format!("{} {:?} {} %: {what}", key_of(migration), status.phase, status.progress);
    text.trim_end_matches([':', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(status: &serde_json::Value) -> VMMigration {
        serde_json::from_value(json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration",
            "metadata": {"name": "web", "namespace": "lab"},
            "spec": {
                "sourceName": "web", "sourceNamespace": "lab", "targetProviderRef": {"name": "b"}, "targetName": "web-2",
                "storage": {"type": "nfs", "path": "/mnt"}
            },
            "status": status
        }))
        .unwrap()
    }

    fn disks() -> serde_json::Value {
        json!([
            {"name": "vda", "stagedBytes": 1000, "bytesTransferred": 450, "bytesPerSecond": 2048, "etaSeconds": 90},
            {"name": "vdb", "bytesTransferred": 0}
        ])
    }

    #[test]
    fn each_disk_that_moves_has_its_rate_and_the_time_that_is_left() {
        let moving = migration(&json!({"phase": "Transferring", "progress": 27, "disks": disks()}));
        let rows = table([&moving], false);
        assert_eq!(
            rows[1],
            [
                "web",
                "Transferring",
                "27 %",
                "vda",
                "45 % of 1000 B",
                "2.0 KiB/s",
                "1m30s"
            ]
        );
        assert_eq!(rows[2], ["", "", "", "vdb", "0 B", "-", "-"]);
        assert_eq!(
            line(&moving),
            "lab/web Transferring 27 %: disk vda 45 %, 450 B of 1000 B, 2.0 KiB/s, 1m30s left; disk vdb 0 B"
        );
    }

    #[test]
    fn what_does_not_move_says_why() {
        let waits = migration(&json!({
            "phase": "Transferring", "progress": 27, "disks": disks(), "message": "retry scheduled in 5m",
            "nextRetryTime": "2025-10-16T10:00:00Z"
        }));
        let rows = table([&waits], true);
        assert_eq!(rows[0][0], "NAMESPACE");
        assert_eq!(
            rows[1],
            [
                "lab",
                "web",
                "Transferring",
                "27 %",
                "-",
                "-",
                "-",
                "-",
                "retry scheduled in 5m"
            ]
        );
        assert_eq!(line(&waits), "lab/web Transferring 27 %: retry scheduled in 5m");
        assert_eq!(line(&migration(&json!({}))), "lab/web Pending 0 %");
    }
}
