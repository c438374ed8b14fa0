//! The engine's [`Events`] on an API server: `events.k8s.io/v1`, one object for what is said again.
//!
//! The name of an event follows from what it says of which migration. So the same event is the same object whoever tells
//! it, after a crash and after another replica took over, too, and only its series is written anew. `events.k8s.io` knows the types
//! Normal and Warning; an event of type Error goes through the core API, which takes any, and is a Warning where it does not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource, ObjectReference};
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use vmferry_api::VMMigration;
use vmferry_engine::port::{Event, EventType, Events};

use crate::call::{CallError, call};
use crate::store::FIELD_MANAGER;

/// The name of who reports.
const CONTROLLER: &str = "infra.virtrigaud.io/vmferry";
/// The most bytes that the API takes in a note.
const NOTE: usize = 1024;
/// The most bytes of a migration's name in the name of an event, which is limited to 253.
const NAME: usize = 230;
/// Of how many events it is remembered how often they were told.
const COUNTS: usize = 4096;

/// Events on an API server. Best effort: what cannot be told is logged.
pub struct KubeEvents {
    client: Client,
    /// Which process reports: the pod's name.
    instance: String,
    /// How often events were told by this process.
    counts: Mutex<BTreeMap<String, i32>>,
}

impl KubeEvents {
    /// Events that are reported by `instance`.
    pub fn new(client: Client, instance: impl Into<String>) -> Self {
        Self {
            client,
            instance: instance.into(),
            counts: Mutex::default(),
        }
    }

    /// Tells something about an object.
    pub async fn tell(&self, about: &ObjectReference, event: &Event) -> Result<(), CallError> {
        if event.event_type == EventType::Error {
            match self.core(about, event).await {
                Err(error) if error.is_refused() => {}
                told => return told,
            }
        }
        let name = name(about, event);
        let made = KubeEvent {
            metadata: meta(about, &name),
            action: Some(event.reason.clone()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(shortened(&event.message)),
            reason: Some(event.reason.clone()),
            regarding: Some(about.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(
                match event.event_type {
                    EventType::Normal => "Normal",
                    EventType::Warning | EventType::Error => "Warning",
                }
                .to_owned(),
            ),
            ..KubeEvent::default()
        };
        let api: Api<KubeEvent> = Api::namespaced(self.client.clone(), namespace(about));
        let params = PostParams::default();
        match call("create", format!("Event {name}"), api.create(&params, &made)).await {
            Err(error) if error.is_conflict() => self.again(&api, &name).await,
            created => created.map(drop),
        }
    }

    /// The event was told before: its series grows.
    async fn again(&self, api: &Api<KubeEvent>, name: &str) -> Result<(), CallError> {
        let body = json!({
            "series": { "count": self.count(name), "lastObservedTime": MicroTime(Timestamp::now()) }
        });
        let patch = Patch::Merge(&body);
        let params = PatchParams::default();
        let patched = api.patch(name, &params, &patch);
        call("update", format!("Event {name}"), patched).await.map(drop)
    }

    /// An event of type Error, through the core API.
    async fn core(&self, about: &ObjectReference, event: &Event) -> Result<(), CallError> {
        let name = name(about, event);
        let now = Timestamp::now();
        let made = CoreEvent {
            metadata: meta(about, &name),
            action: Some(event.reason.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            involved_object: about.clone(),
            message: Some(shortened(&event.message)),
            reason: Some(event.reason.clone()),
            reporting_component: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            source: Some(EventSource {
                component: Some(CONTROLLER.to_owned()),
                host: None,
            }),
            type_: Some("Error".to_owned()),
            ..CoreEvent::default()
        };
        let api: Api<CoreEvent> = Api::namespaced(self.client.clone(), namespace(about));
        let params = PostParams::default();
        match call("create", format!("Event {name}"), api.create(&params, &made)).await {
            Err(error) if error.is_conflict() => {
                let body = json!({ "count": self.count(&name), "lastTimestamp": Time(now) });
                let patch = Patch::Merge(&body);
                let params = PatchParams::default();
                let patched = api.patch(&name, &params, &patch);
                call("update", format!("Event {name}"), patched).await.map(drop)
            }
            created => created.map(drop),
        }
    }

    /// How often an event was told, this time included; at least twice, since there was one already.
    fn count(&self, name: &str) -> i32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= COUNTS {
            counts.clear();
        }
        let count = counts.entry(name.to_owned()).or_insert(1);
        *count = count.saturating_add(1);
        *count
    }
}

#[async_trait]
impl Events for KubeEvents {
    async fn publish(&self, migration: &VMMigration, event: Event) {
        if let Err(error) = self.tell(&migration.object_ref(&()), &event).await {
            tracing::warn!(reason = event.reason, %error, "an event could not be told");
        }
    }
}

fn namespace(about: &ObjectReference) -> &str {
    about.namespace.as_deref().unwrap_or("default")
}

fn meta(about: &ObjectReference, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: about.namespace.clone(),
        labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// The same for the same event of the same object, of no other.
fn name(about: &ObjectReference, event: &Event) -> String {
    let mut hasher = DefaultHasher::new();
    (&about.uid, &about.kind, event.event_type, &event.reason, &event.message).hash(&mut hasher);
    let object = cut(about.name.as_deref().unwrap_or_default(), NAME).trim_end_matches(['.', '-']);
    format!("{object}.{:016x}", hasher.finish())
}

/// A note that the API takes.
fn shortened(message: &str) -> String {
    if message.len() <= NOTE {
        return message.to_owned();
    }
    format!("{}…", cut(message, NOTE - '…'.len_utf8()))
}

/// At most this many bytes of a text, and no half character.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            event_type: EventType::Normal,
            reason: "TransferProgress".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_same_event_has_the_same_name_and_another_has_another() {
        let about = |name: &str, uid: &str| ObjectReference {
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let one = name(&about("m", "1"), &event("Upload progress: 25%"));
        assert_eq!(one, name(&about("m", "1"), &event("Upload progress: 25%")));
        assert!(one.starts_with("m."), "{one}");
        assert_ne!(one, name(&about("m", "1"), &event("Upload progress: 50%")));
        assert_ne!(one, name(&about("m", "2"), &event("Upload progress: 25%")));
        let long = name(&about(&"x.".repeat(126), "1"), &event("y"));
        assert!(long.len() <= 253 && !long.contains(".."), "{long}");
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ü".repeat(1000));
        assert!(long.len() <= NOTE && long.ends_with('…'), "{}", long.len());
    }
}
