//! One step of one migration: what is known, what is to be recorded.
//!
//! Phases change [`Run::status`] and add events; the engine saves once, after the phase has come back, and publishes the
//! events only then. So a status that was saved is always the whole outcome of one step.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use vmferry_api::names::{FINALIZER, event};
use vmferry_api::validate;
use vmferry_api::{
    AcceptedSpec, Condition, DiskStatus, Key, ObjectReference, Phase, Time, VMMigration, VMMigrationSpec,
    VMMigrationStatus,
};
use vmferry_provider::{ImageFormat, Owner};
use vmferry_staging::ObjectKey;

use crate::engine::{Config, Ports};
use crate::failure::{Failure, between};
use crate::line::{Admission, Turn};
use crate::naming;
use crate::port::{Event, EventType, StoreError};

/// What came of a step of a phase.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The phase is done: its condition becomes True with this reason and message.
    Done(&'static str, String),
    /// Record, then go on with the same phase at once.
    Again,
    /// Record, then go on with the same phase after a while.
    Wait(Duration),
    /// Only progress is new: record it if it is time to, then look again.
    Progress,
}

/// One step of one migration.
pub(crate) struct Run {
    pub ports: Ports,
    pub config: Config,
    pub admission: Arc<Admission>,
    /// The right to leave Pending, until this step is recorded.
    pub turn: Option<Turn>,
    pub key: Key,
    pub owner: Owner,
    /// Metadata, and the spec that the migration goes by; the status in here is not looked at, [`Run::status`] is.
    pub migration: VMMigration,
    pub status: VMMigrationStatus,
    saved: VMMigration,
    events: Vec<Event>,
}

impl Run {
    pub(crate) fn new(
        ports: Ports,
        config: Config,
        admission: Arc<Admission>,
        key: Key,
        migration: VMMigration,
    ) -> Self {
        let effective = VMMigration {
            spec: migration.effective_spec(),
            ..migration.clone()
        };
        let mut run = Self {
            ports,
            config,
            admission,
            turn: None,
            key,
            owner: Owner::new(migration.metadata.uid.clone().unwrap_or_default()),
            status: migration.status.clone().unwrap_or_default(),
            migration: effective,
            saved: migration,
            events: Vec::new(),
        };
        if run.status.phase != Phase::Pending && run.status.completion_time.is_none() {
            run.accept();
        }
        run
    }

    /// From here on the migration goes by its source, target and storage as they are now. A later change of them, where
    /// nothing refused it, is told once and passed over.
    pub(crate) fn accept(&mut self) {
        let Some(accepted) = &self.status.accepted_spec else {
            self.status.accepted_spec = Some(AcceptedSpec::of(&self.migration.spec));
            return;
        };
        let differences = accepted.differences(&self.saved.spec);
        if differences.is_empty() || self.status.observed_generation == self.migration.metadata.generation {
            return;
        }
        let text = format!(
            "{} changed while the migration is under way, which is ignored: set it back, or delete the migration and create \
             it anew",
            differences.join(", ")
        );
        self.event(EventType::Warning, event::SPEC_CHANGE_IGNORED, text);
    }

    pub(crate) fn spec(&self) -> &VMMigrationSpec {
        &self.migration.spec
    }

    pub(crate) fn now(&self) -> Time {
        self.ports.clock.now()
    }

    /// How long ago the migration started.
    pub(crate) fn age(&self) -> Duration {
        let start = self.status.start_time.as_ref();
        start.map_or(Duration::ZERO, |start| between(start, &self.now()))
    }

    /// How many retries were made.
    pub(crate) fn attempts(&self) -> u32 {
        self.status.retry_attempts.unwrap_or(0)
    }

    /// The number of this attempt among all that were ever made, from 0: no two jobs share one.
    pub(crate) fn attempt(&self) -> u32 {
        self.status
            .earlier_attempts
            .unwrap_or(0)
            .saturating_add(self.attempts())
    }

    /// How long to wait for the retry that is scheduled, if it is not due yet.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        let due = self.status.next_retry_time.as_ref()?;
        Some(between(&self.now(), due)).filter(|wait| !wait.is_zero())
    }

    /// Schedules a retry.
    pub(crate) fn retry_at(&mut self, wait: Duration) {
        let now = self.now();
        self.status.next_retry_time = now.0.checked_add(wait).ok().map(Time);
        self.status.last_retry_time = Some(now);
    }

    /// Whether what is known differs from what was last saved.
    pub(crate) fn changed(&self) -> bool {
        let saved = self.saved.status.as_ref();
        self.migration.metadata != self.saved.metadata || saved.is_none_or(|saved| *saved != self.status)
    }

    /// Saves if anything changed, then tells of what happened.
    pub(crate) async fn save(&mut self) -> Result<(), StoreError> {
        self.status.observed_generation = self.migration.metadata.generation;
        if self.changed() {
            self.migration.status = Some(self.status.clone());
            self.ports.store.save(&self.migration).await?;
            self.saved.metadata.clone_from(&self.migration.metadata);
            self.saved.status.clone_from(&self.migration.status);
        }
        for event in std::mem::take(&mut self.events) {
            self.ports.events.publish(&self.migration, event).await;
        }
        Ok(())
    }

    /// Adds an event, published after the next save.
    pub(crate) fn event(&mut self, event_type: EventType, reason: &str, message: impl Into<String>) {
        self.events.push(Event {
            event_type,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    /// Adds a normal event.
    pub(crate) fn tell(&mut self, reason: &str, message: impl Into<String>) {
        self.event(EventType::Normal, reason, message);
    }

    /// Sets a condition. The time of its last transition stays unless its status flips.
    pub(crate) fn condition(&mut self, name: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let last_transition_time = self
            .find(name)
            .filter(|old| old.status == status)
            .map_or_else(|| self.now(), |old| old.last_transition_time.clone());
        let new = Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time,
            observed_generation: self.migration.metadata.generation,
        };
        match self.status.conditions.iter_mut().find(|old| old.type_ == name) {
            Some(old) => *old = new,
            None => self.status.conditions.push(new),
        }
    }

    fn find(&self, name: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|each| each.type_ == name)
    }

    /// Whether a condition was ever set: its phase ran, well or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether a condition is True.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.find(name).is_some_and(|each| each.status == "True")
    }

    /// The reason of a condition.
    pub(crate) fn condition_reason(&self, name: &str) -> Option<&str> {
        self.find(name).map(|each| each.reason.as_str())
    }

    /// The message of a condition.
    pub(crate) fn condition_message(&self, name: &str) -> Option<String> {
        self.find(name).map(|each| each.message.clone())
    }

    /// Since when a condition has been what it is.
    pub(crate) fn since(&self, name: &str) -> Option<Time> {
        self.find(name).map(|each| each.last_transition_time.clone())
    }

    /// Raises the progress; it never goes back.
    pub(crate) fn progress(&mut self, percent: u8) {
        self.status.progress = self.status.progress.max(percent.min(100));
    }

    /// Adds our finalizer, unless it is there.
    pub(crate) fn hold(&mut self) {
        let finalizers = self.migration.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|each| each == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    /// Whether our finalizer is there.
    pub(crate) fn held(&self) -> bool {
        let finalizers = self.migration.metadata.finalizers.as_deref().unwrap_or_default();
        finalizers.iter().any(|each| each == FINALIZER)
    }

    /// Removes our finalizer.
    pub(crate) fn let_go(&mut self) {
        if let Some(finalizers) = &mut self.migration.metadata.finalizers {
            finalizers.retain(|each| each != FINALIZER);
        }
    }

    /// Sets a label.
    pub(crate) fn label(&mut self, name: &str, value: String) {
        self.migration
            .metadata
            .labels
            .get_or_insert_default()
            .insert(name.to_owned(), value);
    }

    /// A reference, in the migration's own namespace unless it names another.
    pub(crate) fn resolve(&self, reference: &ObjectReference) -> Key {
        Key::new(
            reference.namespace.as_deref().unwrap_or(&self.key.namespace),
            &reference.name,
        )
    }

    /// Most bytes per second to and from staging, as the migration's annotation has it.
    pub(crate) fn bandwidth_limit(&self) -> Result<Option<NonZeroU64>, Failure> {
        match validate::bandwidth_limit(&self.migration) {
            Ok(limit) => Ok(limit.map(|rate| rate.0)),
            Err(violation) => Err(Failure::permanent("InvalidValue", violation.to_string())),
        }
    }

    /// Where a disk is staged.
    pub(crate) fn object_key(&self, disk: &str, format: ImageFormat) -> Result<ObjectKey, Failure> {
        naming::object_key(&self.key, &self.owner, disk, format).map_err(|error| Failure::bug(error.to_string()))
    }

    /// Where the recorded disks are staged, in order.
    pub(crate) fn objects(&self) -> Result<Vec<(ObjectKey, ImageFormat)>, Failure> {
        let object = |disk: &DiskStatus| {
            let text = disk.format.as_deref().unwrap_or_default();
            let format = text
                .parse()
                .map_err(|error| Failure::bug(format!("status.disks: disk {}: {error}", disk.name)))?;
            Ok((self.object_key(&disk.name, format)?, format))
        };
        self.status.disks.iter().map(object).collect()
    }
}
