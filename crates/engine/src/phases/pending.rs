//! Pending: a slot at each limit, given out in the order in which the migrations started.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::{LABEL_SOURCE_PROVIDER, LABEL_TARGET_PROVIDER, event};
use vmferry_api::{Key, Time};

use crate::failure::{Failure, Trouble};
use crate::line::{self, Place};
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
        let store = run.ports.store.clone();
        let (place, turn) = run.admission.place(&run.key, &*store, &run.config, &run.now()).await?;
        match place {
            Place::Go => {}
            // It asks again before it says what it waits for.
            Place::New => return Ok(Outcome::Wait(run.config.poll)),
            Place::Wait(text, ahead) => {
                run.status.message = Some(text);
                return Ok(Outcome::Wait(line::wait(run.config.poll, ahead)));
            }
        }
        run.turn = Some(turn);
        run.accept();
        run.tell(event::VALIDATION_STARTED, "Source VM validation started");
        Ok(Outcome::Done("Admitted", "Validating source and target".to_owned()))
    }
    .boxed()
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
