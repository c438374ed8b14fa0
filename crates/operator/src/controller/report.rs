//! Telling a migration's user what the engine cannot: that the object does not parse, or that the cluster does not answer.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use vmferry_api::names::{GROUP, VERSION};
use vmferry_api::{Key, Time, VMMigration};
use vmferry_engine::port::{Event, EventType, Store, StoreError};

use crate::call::call;
use crate::events::KubeEvents;
use crate::store::{ACCEPTED, KubeStore, named};

/// The field manager of the condition that an object which does not parse gets: what the operator otherwise wrote into its
/// status stays, since it belongs to another manager.
const MANAGER: &str = "vmferry-reader";

/// Tells users of what is wrong with their objects.
pub(super) struct Reporter {
    pub client: Client,
    pub store: Arc<KubeStore>,
    pub events: Arc<KubeEvents>,
}

impl Reporter {
    /// An object does not parse: it is left alone until it is corrected, and says so.
    pub(super) async fn unreadable(&self, key: &Key, invalid: &InvalidObject) {
        let message = format!(
            "cannot read {}: {}; correct the object, nothing is done with it until then",
            named::<VMMigration>(key),
            invalid.error
        );
        tracing::warn!("{message}");
        let about = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some(VMMigration::kind(&()).into_owned()),
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: invalid.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.tell(&about, "InvalidObject", &message).await;
        let condition = json!([{
            "type": ACCEPTED,
            "status": "False",
            "reason": "InvalidObject",
            "message": message,
            "lastTransitionTime": Time(Timestamp::now()),
        }]);
        self.set_conditions(key, &condition).await;
    }

    /// An object parses: if it once did not, it does not say so any more.
    pub(super) async fn readable(&self, key: &Key) {
        let marked = self.store.get(key).is_some_and(|migration| {
            let status = migration.status.as_ref();
            status.is_some_and(|status| status.conditions.iter().any(|each| each.type_ == ACCEPTED))
        });
        if marked {
            self.set_conditions(key, &json!([])).await;
        }
    }

    /// The cluster has not answered several times in a row.
    pub(super) async fn failing(&self, key: &Key, error: &StoreError) {
        let Some(migration) = self.store.get(key) else {
            return;
        };
        let message = format!("Waiting for the cluster: {error}");
        self.tell(&migration.object_ref(&()), "ClusterFailed", &message).await;
        let mut noted = (*migration).clone();
        noted.status.get_or_insert_default().message = Some(message);
        if let Err(error) = self.store.save(&noted).await {
            tracing::debug!(%error, "the status does not say that the cluster fails");
        }
    }

    async fn tell(&self, about: &ObjectReference, reason: &str, message: &str) {
        let event = Event {
            event_type: EventType::Warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if let Err(error) = self.events.tell(about, &event).await {
            tracing::warn!(reason, %error, "an event could not be told");
        }
    }

    /// The conditions of [`MANAGER`], which are all that it has.
    async fn set_conditions(&self, key: &Key, conditions: &Value) {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": VMMigration::kind(&()),
            "metadata": { "name": key.name, "namespace": key.namespace },
            "status": { "conditions": conditions },
        });
        let api: Api<kube::core::PartialObjectMeta<VMMigration>> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&body);
        let patched = api.patch_status(&key.name, &params, &patch);
        if let Err(error) = call("save the conditions of", named::<VMMigration>(key), patched).await {
            tracing::warn!(%error, "only an event and the log say it");
        }
    }
}
