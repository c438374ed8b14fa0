//! Taking up manifests: what a cluster's API server does when they are applied.
//!
//! First everything is looked at, then everything is written; where anything is refused, nothing is.

use std::path::PathBuf;

use uuid::Uuid;
use vmferry_api::manifest::{Declared, Manifests, Origin, key_of};
use vmferry_api::validate;
use vmferry_api::{Key, Time, VMMigration, VirtualMachine};

use crate::store::{LocalStore, keep};
use crate::{Error, Record, file};

/// A migration that cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was declared.
    pub origin: Origin,
    /// Which.
    pub key: Key,
    /// Why, and what to do.
    pub detail: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: VMMigration {}: {}", self.origin, self.key, self.detail)
    }
}

/// What became of a migration that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Created,
    /// Its spec changed.
    Changed,
    /// It goes on as it was.
    Unchanged,
}

/// What was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The migrations, in order of their names.
    pub migrations: Vec<(Key, Change)>,
}

impl LocalStore {
    /// Looks at what applying would refuse, and changes nothing.
    pub fn refusals(&self, manifests: &Manifests) -> Vec<Refusal> {
        manifests
            .migrations
            .iter()
            .flat_map(|(key, declared)| {
                let old = self.record(key);
                let refuse = |detail| Refusal {
                    origin: declared.origin.clone(),
                    key: key.clone(),
                    detail,
                };
                old.map(|old| refused(&old.migration, &declared.object))
                    .unwrap_or_default()
                    .into_iter()
                    .map(refuse)
            })
            .collect()
    }

    /// Takes up the manifests, which came from `paths` (absolute; empty where from standard input).
    ///
    /// Whoever calls this has seen that [`refusals`](Self::refusals) is empty; what would be refused is passed over here.
    ///
    /// # Errors
    /// Where something cannot be written. Applying again completes it.
    pub fn apply(&self, manifests: &Manifests, paths: &[PathBuf], now: &Time) -> Result<Applied, Error> {
        for (key, declared) in &manifests.providers {
            keep(&self.dir, "providers", &declared.object)?;
            self.state().providers.insert(key.clone(), declared.object.clone());
        }
        for (key, declared) in &manifests.virtual_machines {
            let vm = self.merged(key, &declared.object);
            keep(&self.dir, "virtualmachines", &vm)?;
            self.state().virtual_machines.insert(key.clone(), vm);
        }
        self.set_secrets(
            manifests
                .secrets
                .iter()
                .map(|(key, secret)| (key.clone(), secret.object.clone())),
        );
        let mut applied = Applied::default();
        for (key, declared) in &manifests.migrations {
            let change = self.apply_migration(key, declared, paths, now)?;
            applied.migrations.push((key.clone(), change));
        }
        Ok(applied)
    }

    /// A virtual machine as declared, with the status that is known where the manifest has none.
    fn merged(&self, key: &Key, declared: &VirtualMachine) -> VirtualMachine {
        let known = self
            .state()
            .virtual_machines
            .get(key)
            .and_then(|known| known.status.clone());
        VirtualMachine {
            status: declared.status.clone().or(known),
            ..declared.clone()
        }
    }

    fn apply_migration(
        &self,
        key: &Key,
        declared: &Declared<VMMigration>,
        paths: &[PathBuf],
        now: &Time,
    ) -> Result<Change, Error> {
        let old = self.record(key);
        let (migration, change) = match &old {
            None => (created(&declared.object, now), Change::Created),
            Some(old) if !refused(&old.migration, &declared.object).is_empty() => return Ok(Change::Unchanged),
            Some(old) => changed(&old.migration, &declared.object),
        };
        let record = Record {
            migration,
            manifests: paths.to_vec(),
        };
        if old.as_ref() != Some(&record) {
            file::replace(&self.dir.path("migrations", key, "json")?, &record)?;
            self.state().migrations.insert(key.clone(), record);
        }
        Ok(change)
    }
}

/// Why a migration cannot take the place of the one that is known.
fn refused(old: &VMMigration, new: &VMMigration) -> Vec<String> {
    if old.metadata.deletion_timestamp.is_some() {
        let key = key_of(old);
        return vec![format!(
            "it is being deleted: let `vmferry delete {} --namespace {}` finish first",
            key.name, key.namespace
        )];
    }
    let violations = validate::migration_update(new, old);
    violations.iter().map(ToString::to_string).collect()
}

fn created(declared: &VMMigration, now: &Time) -> VMMigration {
    let mut migration = declared.clone();
    migration.metadata.uid = Some(Uuid::new_v4().to_string());
    migration.metadata.generation = Some(1);
    migration.metadata.creation_timestamp = Some(now.clone());
    migration
}

/// The known migration with the declared spec, labels and annotations. The labels that the engine set stay.
fn changed(old: &VMMigration, declared: &VMMigration) -> (VMMigration, Change) {
    let mut migration = old.clone();
    for (mine, theirs) in [
        (&mut migration.metadata.labels, &declared.metadata.labels),
        (&mut migration.metadata.annotations, &declared.metadata.annotations),
    ] {
        if let Some(theirs) = theirs {
            mine.get_or_insert_default().extend(theirs.clone());
        }
    }
    if migration.spec == declared.spec {
        return (migration, Change::Unchanged);
    }
    migration.spec = declared.spec.clone();
    migration.metadata.generation = Some(migration.metadata.generation.unwrap_or(0) + 1);
    (migration, Change::Changed)
}
