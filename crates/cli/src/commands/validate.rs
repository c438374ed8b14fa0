//! `vmferry validate`.

use std::sync::Arc;

use vmferry_api::manifest::Manifests;
use vmferry_api::{Key, Phase};
use vmferry_engine::port::Store;
use vmferry_engine::{Config, Engine, Next, Ports};
use vmferry_staging::HostPolicy;

use super::controller::place;
use super::on_disk;
use crate::args::Validate;
use crate::clock::SystemClock;
use crate::exit::{Code, Failure};
use crate::input;
use crate::output;
use crate::scratch::Scratch;
use crate::wiring::Wiring;

/// Checks manifests; with `--connect` also what they speak of.
pub async fn validate(args: Validate) -> Result<Code, Failure> {
    let hosts = args.hosts.policy().map_err(Failure::bad_input)?;
    let manifests = on_disk(|| input::read(&args.files.paths))?.manifests;
    if manifests.is_empty() {
        return Err(Failure::bad_input("the manifests declare nothing"));
    }
    let missing = manifests.missing_references(manifests.migrations.keys(), &on_disk(|| args.state.look())?);
    if !missing.is_empty() {
        return Err(Failure::all_bad(missing));
    }
    output::line(&format!(
        "the manifests are well-formed: {} VMMigration, {} Provider, {} VirtualMachine, {} Secret",
        manifests.migrations.len(),
        manifests.providers.len(),
        manifests.virtual_machines.len(),
        manifests.secrets.len()
    ));
    if args.connect {
        connect(manifests, hosts).await
    } else {
        Ok(Code::Success)
    }
}

/// Lets the engine validate each migration on a store that is nowhere, and stops before anything would be made.
async fn connect(manifests: Manifests, hosts: HostPolicy) -> Result<Code, Failure> {
    let keys: Vec<Key> = manifests.migrations.keys().cloned().collect();
    let scratch = Arc::new(Scratch::new(manifests));
    let runtime = on_disk(|| place::runtime(None))?;
    let engine = Engine::new(
        Ports {
            store: Arc::clone(&scratch) as _,
            connector: Arc::new(Wiring::new(runtime.path().to_owned(), hosts)),
            executor: Arc::clone(&scratch) as _,
            clock: Arc::new(SystemClock),
            events: Arc::clone(&scratch) as _,
        },
        Config {
            max_concurrent: keys.len(),
            ..Config::default()
        },
    );
    let mut messages = Vec::new();
    for key in &keys {
        match look(&engine, &scratch, key).await? {
            Ok(notes) => {
                output::line(&format!("{key}: source, target and staging storage are fit for it"));
                if let Some(notes) = notes {
                    output::line(&format!("{key}: {notes}"));
                }
            }
            Err(message) => messages.push(format!("VMMigration {key}: {message}")),
        }
    }
    if messages.is_empty() {
        Ok(Code::Success)
    } else {
        let code = Code::Failed;
        Err(Failure { code, messages })
    }
}

/// Steps one migration to the end of its validation: what is worth telling about its storage, or what is wrong.
async fn look(engine: &Engine, store: &Scratch, key: &Key) -> Result<Result<Option<String>, String>, Failure> {
    loop {
        let next = engine.step(key).await.map_err(Failure::failed)?;
        let migration = store.migration(key).await.map_err(Failure::failed)?;
        let status = migration.and_then(|migration| migration.status).unwrap_or_default();
        let message = status.message.unwrap_or_default();
        match status.phase {
            Phase::Pending | Phase::Validating if next == Next::Now && status.next_retry_time.is_none() => {}
            Phase::Pending | Phase::Validating | Phase::Failed => return Ok(Err(message)),
            // What the phase says, then the notes.
            _ => return Ok(Ok(message.split_once("; ").map(|(_, notes)| notes.to_owned()))),
        }
    }
}
