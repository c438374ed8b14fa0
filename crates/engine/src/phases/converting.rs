//! Converting: what could not be encoded in flight. At present all of it could.

use futures::FutureExt;
use futures::future::BoxFuture;
use vmferry_api::names::event;

use crate::failure::Trouble;
use crate::run::{Outcome, Run};

pub(crate) fn act(run: &mut Run) -> BoxFuture<'_, Result<Outcome, Trouble>> {
    async move {
        let format = run.status.disks.first().and_then(|disk| disk.format.clone());
        let text = format!("Encoded as {} while it was uploaded", format.unwrap_or_default());
        run.tell(event::IMPORT_STARTED, "Download from storage started");
        Ok(Outcome::Done("ConvertedInFlight", text))
    }
    .boxed()
}
