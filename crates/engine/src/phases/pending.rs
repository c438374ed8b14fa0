//! Pending: one slot of a limited number, given out in the order in which the migrations started.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{LABEL_SOURCE_PROVIDER, LABEL_TARGET_PROVIDER, event};
use vmferry_api::{Key, Phase, Time, VMMigration};

use crate::failure::{Failure, Trouble};
use crate::port::StoreError;
use crate::run::{Outcome, Run};
use crate::world::{provider_key, type_name};

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        if run.owner.tag().len() < 12 {
            let text = format!("metadata.uid of VMMigration {} is not a UUID", run.key);
            return Err(Failure::bug(text).into());
        }
        if run.status.start_time.is_none() {
            run.status.start_time = Some(run.now());
            label(run).await?;
            run.status.message = Some("Migration accepted".to_owned());
            return Ok(Outcome::Again);
        }
        let ahead = ahead(run).await?;
        let limit = run.config.max_concurrent.max(1);
        if ahead >= limit {
            run.status.message = Some(format!(
                "Waiting for a free slot: at most {limit} migrations run at once"
            ));
            return Ok(Outcome::Wait(run.config.poll));
        }
        run.tell(event::VALIDATION_STARTED, "Source VM validation started");
        Ok(Outcome::Done("Admitted", "Validating source and target".to_owned()))
    }
    .boxed()
}

/// How many migrations hold a slot or are first in line for one. Every step counts the same way, so that two migrations
/// that are looked at at the same time do not both take the last slot.
async fn ahead(run: &Run) -> Result<usize, StoreError> {
    let mine = (run.status.start_time.clone(), run.key.clone());
    let others = run.ports.store.migrations().await?;
    let counts = |other: &&VMMigration| {
        let key = key(other);
        let status = other.status.clone().unwrap_or_default();
        match status.phase {
            _ if key == run.key || status.completion_time.is_some() => false,
            Phase::Pending => {
                let waits = other.metadata.deletion_timestamp.is_none() && status.start_time.is_some();
                waits && (status.start_time, key) < mine
            }
            _ => true,
        }
    };
    Ok(others.iter().filter(counts).count())
}

/// Namespace and name of a migration.
pub(crate) fn key(migration: &VMMigration) -> Key {
    let meta = &migration.metadata;
    Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Sets the labels that say from what to what it goes, as far as that is known.
pub(crate) async fn label(run: &mut Run) -> Result<(), StoreError> {
    let store = run.ports.store.clone();
    let vm_key = run.source_key();
    if let Some(vm) = store.virtual_machine(&vm_key).await?
        && let Some(provider) = store.provider(&provider_key(&vm_key, &vm)).await?
    {
        run.label(LABEL_SOURCE_PROVIDER, type_name(provider.spec.provider_type).to_owned());
    }
    let target = run.resolve(&run.spec().target_provider_ref);
    if let Some(provider) = store.provider(&target).await? {
        run.label(LABEL_TARGET_PROVIDER, type_name(provider.spec.provider_type).to_owned());
    }
    Ok(())
}

/// Whether `one` started before `other`; of two that started in the same second, the one whose name sorts first.
pub(crate) fn is_older(one: (&Time, &Key), other: (&Time, &Key)) -> bool {
    one < other
}
