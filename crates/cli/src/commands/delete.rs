//! `vmferry delete`.

use std::path::PathBuf;
use std::sync::Arc;

use vmferry_api::manifest::key_of;
use vmferry_api::{Key, VMMigration};
use vmferry_engine::Config;
use vmferry_engine::port::{Clock, Store};
use vmferry_local::{LocalStore, Record};

use super::on_disk;
use super::run::summarize;
use crate::args::Delete;
use crate::clock::SystemClock;
use crate::drive::{Driver, Ending, Stop};
use crate::exit::{Code, Failure};
use crate::input;
use crate::output;
use crate::wiring::Wiring;

/// Deletes migrations: the engine removes what they made, then they disappear.
pub async fn delete(args: Delete) -> Result<Code, Failure> {
    let hosts = args.hosts.policy().map_err(Failure::bad_input)?;
    let reporter = output::reporter(args.output);
    let store = Arc::new(on_disk(|| args.state.open(output::observer(&reporter)))?);
    let records = args
        .names
        .iter()
        .map(|name| args.namespace.find(&store, name))
        .collect::<Result<Vec<_>, _>>()?;
    if !args.paths.is_empty() {
        correct(&store, &args.paths)?;
    }
    for record in &records {
        know_secrets(&store, record, &args.paths).await?;
    }
    let keys: Vec<Key> = records.iter().map(|record| key_of(&record.migration)).collect();
    for key in &keys {
        store
            .mark_deleted(key, SystemClock.now())
            .await
            .map_err(Failure::failed)?;
    }
    let connector = Arc::new(Wiring::new(store.dir().runtime(), hosts));
    let driver = Driver::new(&store, connector, Arc::clone(&reporter), Config::default());
    let driven = driver.drive(keys, Some(args.timeout.0)).await?;
    summarize(&store, &*reporter, &driven);
    let gone = driven.endings.iter().all(|(_, ending)| *ending == Ending::Gone);
    if !gone {
        reporter.note(
            None,
            "not all is cleaned up; the state is kept: the same command continues",
        );
    }
    Ok(match driven.stop {
        _ if gone => Code::Success,
        Some(Stop::Interrupted) => Code::Interrupted,
        _ => Code::Failed,
    })
}

/// Takes over Providers and VirtualMachines as they are now: a host may have moved since the migration ran.
fn correct(store: &LocalStore, paths: &[PathBuf]) -> Result<(), Failure> {
    let mut input = on_disk(|| input::read(paths))?;
    input.manifests.migrations.clear();
    let applied = on_disk(|| store.apply(&input.manifests, &input.paths, &SystemClock.now()));
    applied.map(drop).map_err(Failure::bad_input)
}

/// Finds the Secrets that cleaning up needs: in `paths`, or else in the files that the migration was last run from.
async fn know_secrets(store: &LocalStore, record: &Record, paths: &[PathBuf]) -> Result<(), Failure> {
    let migration = &record.migration;
    let needed = needed_secrets(store, migration).await?;
    if needed.is_empty() || nothing_to_clean(migration) {
        return Ok(());
    }
    let paths = if paths.is_empty() { &record.manifests } else { paths };
    let key = key_of(migration);
    let hint = format!("give the manifests with the Secrets: vmferry delete {key} -f PATH");
    if paths.is_empty() {
        let names = names(&needed);
        return Err(Failure::bad_input(format!(
            "VMMigration {key} needs Secret {names} to clean up, and its manifests came from standard input; {hint}"
        )));
    }
    let input = on_disk(|| input::read(paths)).map_err(|mut failure| {
        failure.messages.push(hint.clone());
        failure
    })?;
    let lost: Vec<Key> = needed
        .into_iter()
        .filter(|secret| !input.manifests.secrets.contains_key(secret))
        .collect();
    if !lost.is_empty() {
        let names = names(&lost);
        return Err(Failure::bad_input(format!(
            "VMMigration {key} needs Secret {names} to clean up, which its manifests do not declare any more; {hint}"
        )));
    }
    store.set_secrets(
        input
            .manifests
            .secrets
            .into_iter()
            .map(|(key, secret)| (key, secret.object)),
    );
    Ok(())
}

fn names(keys: &[Key]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a migration never began, or came to its end.
fn nothing_to_clean(migration: &VMMigration) -> bool {
    let ended = migration
        .status
        .as_ref()
        .is_some_and(|status| status.completion_time.is_some());
    ended || migration.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// The Secrets of the storage and of both providers.
async fn needed_secrets(store: &LocalStore, migration: &VMMigration) -> Result<Vec<Key>, Failure> {
    let mut providers = vec![migration.target_provider_key()];
    if let Some(vm) = store
        .virtual_machine(&migration.source_key())
        .await
        .map_err(Failure::failed)?
    {
        providers.push(vm.provider_key());
    }
    let mut secrets: Vec<Key> = migration.storage_secret_key().into_iter().collect();
    for key in providers {
        let provider = store.provider(&key).await.map_err(Failure::failed)?;
        secrets.extend(provider.and_then(|provider| provider.secret_key()));
    }
    secrets.sort();
    secrets.dedup();
    Ok(secrets)
}
