//! What is measured, and how it is written for Prometheus.
//!
//! What is so at the moment (migrations by phase, the rate) is counted when somebody asks; what happened is counted when it is
//! saved, from the state before and after. So a migration that ended is counted once, by the process that recorded it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use vmferry_api::{Phase, VMMigration, VMMigrationStatus};

use crate::store::Observer;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Well, which says nothing of the migration.
    Done,
    /// The migration changed meanwhile.
    Conflict,
    /// The API server could not be asked or told.
    Store,
    /// It panicked.
    Panic,
}

/// One label and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Label(&'static str, &'static str);

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), std::fmt::Error> {
        (self.0, self.1).encode(encoder.encode_label())
    }
}

/// All that is measured.
pub struct Metrics {
    registry: Registry,
    phases: Family<Label, Gauge>,
    waiting: Gauge,
    rate: Gauge,
    tasks: Gauge,
    leader: Gauge,
    finished: Family<Label, Counter>,
    phase_durations: Family<Label, Histogram>,
    retries: Counter,
    bytes: Family<Label, Counter>,
    steps: Histogram,
    failures: Family<Label, Counter>,
    saves: Counter<u64, AtomicU64>,
}

/// What is so at the moment that somebody asks.
pub(crate) struct Now<'m> {
    pub migrations: &'m [std::sync::Arc<VMMigration>],
    pub tasks: usize,
    pub leads: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vmferry"),
            phases: Family::default(),
            waiting: Gauge::default(),
            rate: Gauge::default(),
            tasks: Gauge::default(),
            leader: Gauge::default(),
            finished: Family::default(),
            // From a second to four days.
            phase_durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 3.0, 13))),
            retries: Counter::default(),
            bytes: Family::default(),
            // From a millisecond to four minutes.
            steps: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            failures: Family::default(),
            saves: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("migrations", "Migrations by phase", self.phases.clone());
        registry.register(
            "migrations_waiting",
            "Migrations that wait for a slot",
            self.waiting.clone(),
        );
        registry.register(
            "transfer_rate_bytes_per_second",
            "Bytes that are moved in a second",
            self.rate.clone(),
        );
        registry.register("tasks", "Migrations that are being looked after", self.tasks.clone());
        registry.register("leader", "Whether this replica leads", self.leader.clone());
        registry.register(
            "migrations_finished",
            "Migrations that came to their end, by outcome",
            self.finished.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "How long phases took",
            Unit::Seconds,
            self.phase_durations.clone(),
        );
        registry.register("retries", "Retries that were scheduled", self.retries.clone());
        registry.register_with_unit(
            "transferred",
            "What was moved to and from staging storage",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long steps took",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Steps that could not be done, by kind",
            self.failures.clone(),
        );
        registry.register("status_writes", "Saves of migrations", self.saves.clone());
        // What never happened is zero, and not absent.
        for outcome in ["Ready", "Failed"] {
            let _ = self.finished.get_or_create(&Label("outcome", outcome));
        }
        for kind in [Step::Conflict, Step::Store, Step::Panic] {
            let _ = self.failures.get_or_create(&Label("kind", kind.name()));
        }
        for direction in ["upload", "download"] {
            let _ = self.bytes.get_or_create(&Label("direction", direction));
        }
    }

    /// A step was done.
    pub(crate) fn stepped(&self, how: Step, took: Duration) {
        self.steps.observe(took.as_secs_f64());
        if how != Step::Done {
            let _ = self.failures.get_or_create(&Label("kind", how.name())).inc();
        }
    }

    /// All of it, in the OpenMetrics format.
    pub(crate) fn text(&self, now: &Now<'_>) -> String {
        self.count(now);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn count(&self, now: &Now<'_>) {
        let mut phases = [0_i64; PHASES.len()];
        let (mut waiting, mut rate) = (0, 0);
        for migration in now.migrations {
            let status = migration.status.as_ref();
            let phase = status.map(|status| status.phase).unwrap_or_default();
            phases[phase as usize] += 1;
            waiting += i64::from(status.is_some_and(waits));
            rate += status.filter(|status| moving(status.phase).is_some()).map_or(0, speed);
        }
        for (name, count) in PHASES.into_iter().zip(phases) {
            self.phases.get_or_create(&Label("phase", name)).set(count);
        }
        self.waiting.set(waiting);
        self.rate.set(rate);
        self.tasks.set(i64::try_from(now.tasks).unwrap_or(i64::MAX));
        self.leader.set(i64::from(now.leads));
    }
}

impl Observer for Metrics {
    fn saved(&self, before: &VMMigration, after: &VMMigration) {
        let none = VMMigrationStatus::default();
        let (old, new) = (
            before.status.as_ref().unwrap_or(&none),
            after.status.as_ref().unwrap_or(&none),
        );
        self.saves.inc();
        self.retries.inc_by(u64::from(
            new.retry_attempts
                .unwrap_or(0)
                .saturating_sub(old.retry_attempts.unwrap_or(0)),
        ));
        if old.phase != new.phase
            && let (Some(from), Some(to)) = (changed(old), changed(new))
        {
            let took = to.duration_since(from).as_secs_f64().max(0.0);
            let label = Label("phase", PHASES[old.phase as usize]);
            self.phase_durations.get_or_create(&label).observe(took);
        }
        if old.completion_time.is_none() && new.completion_time.is_some() {
            let label = Label("outcome", PHASES[new.phase as usize]);
            let _ = self.finished.get_or_create(&label).inc();
        }
        if let Some(direction) = moving(old.phase) {
            let moved = done(new).saturating_sub(done(old));
            let _ = self.bytes.get_or_create(&Label("direction", direction)).inc_by(moved);
        }
        if old.phase != new.phase {
            let message = new.message.as_deref().unwrap_or_default();
            tracing::info!(phase = PHASES[new.phase as usize], progress = new.progress, "{message}");
        }
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "none",
            Self::Conflict => "conflict",
            Self::Store => "store",
            Self::Panic => "panic",
        }
    }
}

/// In the order of [`Phase`].
const PHASES: [&str; 11] = [
    "Pending",
    "Validating",
    "Snapshotting",
    "Exporting",
    "Transferring",
    "Converting",
    "Importing",
    "Creating",
    "ValidatingTarget",
    "Ready",
    "Failed",
];

/// The name of a phase.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    PHASES[phase as usize]
}

fn waits(status: &VMMigrationStatus) -> bool {
    status.phase == Phase::Pending && status.start_time.is_some() && status.completion_time.is_none()
}

/// Which way bytes go in a phase.
fn moving(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Transferring => Some("upload"),
        Phase::Importing => Some("download"),
        _ => None,
    }
}

fn speed(status: &VMMigrationStatus) -> i64 {
    status.disks.iter().filter_map(|disk| disk.bytes_per_second).sum()
}

/// Bytes of the current direction.
fn done(status: &VMMigrationStatus) -> u64 {
    let bytes = status.disks.iter().filter_map(|disk| disk.bytes_transferred);
    bytes.filter_map(|bytes| u64::try_from(bytes).ok()).sum()
}

/// When a status last came a phase further: when a condition became True, or it started.
pub(crate) fn changed(status: &VMMigrationStatus) -> Option<Timestamp> {
    let times = status.conditions.iter().filter(|condition| condition.status == "True");
    let times = times.map(|condition| condition.last_transition_time.0);
    times.chain(status.start_time.as_ref().map(|time| time.0)).max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn migration(status: &Value) -> VMMigration {
        let value = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration", "metadata": {"name": "m"},
            "spec": {
                "sourceName": "a", "sourceNamespace": "n", "targetProviderRef": {"name": "p"}, "targetName": "b",
                "storage": {"type": "nfs", "path": "/m"}
            },
            "status": status
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_names_of_the_phases_are_in_order() {
        for (index, name) in PHASES.iter().enumerate() {
            let phase: Phase = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(phase as usize, index);
        }
    }

    #[test]
    fn what_happened_is_counted_when_it_is_saved() {
        let metrics = Metrics::default();
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
        let condition = |kind: &str, second| json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": at(second)});
        let uploading = |bytes: u64| {
            json!({
                "phase": "Transferring", "startTime": at(0), "conditions": [condition("Exported", 10)],
                "disks": [{"name": "vda", "bytesTransferred": bytes, "bytesPerSecond": 7}]
            })
        };
        let uploaded = json!({
            "phase": "Converting", "startTime": at(0), "retryAttempts": 1,
            "conditions": [condition("Exported", 10), condition("Transferred", 50)],
            "disks": [{"name": "vda", "bytesTransferred": 1000}]
        });
        let states = [
            migration(&uploading(100)),
            migration(&uploading(600)),
            migration(&uploaded),
        ];
        metrics.saved(&states[0], &states[1]);
        metrics.saved(&states[1], &states[2]);
        let failed = migration(&json!({"phase": "Failed", "completionTime": at(55)}));
        metrics.saved(&states[2], &failed);
        metrics.stepped(Step::Conflict, Duration::from_millis(3));

        let pending = migration(&json!({"phase": "Pending", "startTime": at(0)}));
        let text = metrics.text(&Now {
            migrations: &[Arc::new(pending), Arc::new(migration(&uploading(1)))],
            tasks: 2,
            leads: true,
        });
        for line in [
            "vmferry_transferred_bytes_total{direction=\"upload\"} 900",
            "vmferry_transferred_bytes_total{direction=\"download\"} 0",
            "vmferry_phase_duration_seconds_sum{phase=\"Transferring\"} 40.0",
            "vmferry_migrations_finished_total{outcome=\"Failed\"} 1",
            "vmferry_migrations_finished_total{outcome=\"Ready\"} 0",
            "vmferry_retries_total 1",
            "vmferry_reconcile_failures_total{kind=\"conflict\"} 1",
            "vmferry_reconcile_duration_seconds_count 1",
            "vmferry_status_writes_total 3",
            "vmferry_migrations{phase=\"Pending\"} 1",
            "vmferry_migrations{phase=\"Transferring\"} 1",
            "vmferry_migrations{phase=\"Ready\"} 0",
            "vmferry_migrations_waiting 1",
            "vmferry_transfer_rate_bytes_per_second 7",
            "vmferry_tasks 2",
            "vmferry_leader 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
