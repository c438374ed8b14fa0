//! Whether Providers answer.

use serde_json::{Map, json};
use vmferry_api::Provider;
use vmferry_api::manifest::key_of;
use vmferry_api::names::{HEALTH_CHECKER, PROVIDER_AVAILABLE};

use super::ownership::{Field, may_write};
use super::write::Says;
use super::{Keeper, limited, reason};
use crate::call::find;
use crate::store::named;

const FIELDS: [Field; 2] = [Field::Plain("healthy"), Field::Condition(PROVIDER_AVAILABLE)];

impl Keeper {
    /// Asks a Provider's host whether it answers and accepts the credentials, and says so in its status.
    pub(super) async fn provider(&self, known: &Provider) {
        let key = key_of(known);
        // As it is now: with who wrote it, which the caches leave out.
        let api = self.api::<Provider>(&key.namespace);
        let provider = match find("read", named::<Provider>(&key), api.get(&key.name)).await {
            Ok(Some(provider)) if may_write(self.mode, &provider.metadata, &FIELDS) => provider,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "a Provider is not looked at"),
        };
        let asked = async { self.open(&key, &provider).await?.check().await };
        let answer = limited("ask", &key, asked).await;
        let says = match &answer {
            Ok(()) => Says {
                kind: PROVIDER_AVAILABLE,
                status: "True",
                reason: "Connected",
                message: "The host answers and accepts the credentials".to_owned(),
            },
            Err(fault) => Says {
                kind: PROVIDER_AVAILABLE,
                status: "False",
                reason: reason(fault.kind()),
                message: fault.to_string(),
            },
        };
        let old = provider.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let condition = says.condition(old, provider.metadata.generation);
        let fields = Map::from_iter([
            ("healthy".to_owned(), json!(answer.is_ok())),
            ("healthCheckedBy".to_owned(), json!(HEALTH_CHECKER)),
        ]);
        self.write(&key, &provider, fields, condition).await;
    }
}
