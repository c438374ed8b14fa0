//! `vmferry run`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Phase};
use vmferry_engine::Config;
use vmferry_engine::port::Clock;
use vmferry_local::LocalStore;
use vmferry_staging::limit::Bucket;

use super::on_disk;
use crate::args::{Run, Verify};
use crate::clock::SystemClock;
use crate::drive::{Driven, Driver, Ending, Stop};
use crate::exit::{Code, Failure};
use crate::input::{self, Input};
use crate::output::{self, Reporter};
use crate::wiring::Wiring;

/// Runs all migrations of the manifests to their end.
pub async fn run(args: Run) -> Result<Code, Failure> {
    let input = on_disk(|| input::read(&args.files.paths))?;
    if input.manifests.migrations.is_empty() {
        return Err(Failure::bad_input(
            "the manifests declare no VMMigration: there is nothing to run",
        ));
    }
    let hosts = args.hosts.policy().map_err(Failure::bad_input)?;
    let reporter = output::reporter(args.output);
    let store = Arc::new(on_disk(|| args.state.open(output::observer(&reporter)))?);
    let keys = on_disk(|| take_up(&store, &input))?;
    let limit = args.bandwidth_limit.map(|rate| Bucket::new(rate.0));
    let connector = Arc::new(Wiring::new(store.dir().runtime(), hosts).limited(limit));
    let driver = Driver::new(
        &store,
        connector,
        Arc::clone(&reporter),
        config(&args, &store, &keys, &*reporter),
    );
    let driven = driver.drive(keys, args.timeout.map(|timeout| timeout.0)).await?;
    summarize(&store, &*reporter, &driven);
    Ok(code(&driven, &*reporter))
}

/// Applies the manifests, or refuses all of them before anything is written.
fn take_up(store: &LocalStore, input: &Input) -> Result<Vec<Key>, Failure> {
    let manifests = &input.manifests;
    let ended = |key: &Key| {
        let status = store.record(key).and_then(|record| record.migration.status);
        status.is_some_and(|status| status.completion_time.is_some())
    };
    let alive: Vec<&Key> = manifests.migrations.keys().filter(|key| !ended(key)).collect();
    let missing = manifests.missing_references(alive, store);
    let refusals = store.refusals(manifests);
    if !missing.is_empty() || !refusals.is_empty() {
        let missing = missing.iter().map(ToString::to_string);
        return Err(Failure::all_bad(
            missing.chain(refusals.iter().map(ToString::to_string)),
        ));
    }
    let applied = store
        .apply(manifests, &input.paths, &SystemClock.now())
        .map_err(Failure::bad_input)?;
    Ok(applied.migrations.into_iter().map(|(key, _)| key).collect())
}

/// Migrations of other manifests that are not at their end are driven by nobody here: they must not keep ours waiting.
fn config(args: &Run, store: &LocalStore, keys: &[Key], reporter: &dyn Reporter) -> Config {
    let mut bystanders = BTreeSet::new();
    for record in store.records() {
        let key = key_of(&record.migration);
        let ended = record
            .migration
            .status
            .as_ref()
            .is_some_and(|status| status.completion_time.is_some());
        if !ended && !keys.contains(&key) {
            let text = format!(
                "is unfinished and not among these manifests: run its manifests, too, or `vmferry delete {key}`"
            );
            reporter.note(Some(&key), &text);
            bystanders.insert(key);
        }
    }
    Config {
        max_concurrent: usize::from(args.max_concurrent),
        bystanders,
        max_per_provider: args.max_per_provider.map(usize::from),
        max_per_host: args.max_per_host.map(usize::from),
        readback: args.verify == Verify::Readback,
        poll: Duration::from_millis(500),
        progress_interval: Duration::from_secs(1),
    }
}

/// Shows how each migration ended.
pub(super) fn summarize(store: &LocalStore, reporter: &dyn Reporter, driven: &Driven) {
    let endings: Vec<_> = driven
        .endings
        .iter()
        .map(|(key, ending)| (key.clone(), *ending, store.record(key).map(|record| record.migration)))
        .collect();
    reporter.summary(&endings);
}

fn code(driven: &Driven, reporter: &dyn Reporter) -> Code {
    let kept = "the state is kept: the same command continues";
    match driven.stop {
        Some(Stop::Interrupted) => {
            reporter.note(None, &format!("interrupted; {kept}"));
            return Code::Interrupted;
        }
        Some(Stop::TimedOut) => {
            reporter.note(None, &format!("the time limit of --timeout was reached; {kept}"));
            return Code::Failed;
        }
        None => {}
    }
    let ready = |(_, ending): &(Key, Ending)| *ending == Ending::Done(Phase::Ready);
    if driven.endings.iter().all(ready) {
        Code::Success
    } else {
        Code::Failed
    }
}
