//! One JSON object a line, each with `time`, `type` and, where it is about one, `migration`.
//!
//! `type` is `status` (phase, progress, message, disks as in the resource), `event` (as in the resource's events), `note`
//! (text) or `result` (how a migration ended, with its whole status).

use jiff::Timestamp;
use serde_json::{Value, json};
use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Phase, VMMigration};
use vmferry_engine::port::Event;
use vmferry_local::Observer;

use super::{Reporter, line};
use crate::drive::Ending;

/// One JSON object a line.
pub(super) struct Json;

fn tell(kind: &str, key: Option<&Key>, fields: Value) {
    let mut object = json!({ "time": format!("{:.0}", Timestamp::now()), "type": kind });
    if let Some(key) = key {
        object["migration"] = json!(key);
    }
    if let Value::Object(fields) = fields {
        for (name, value) in fields {
            object[name] = value;
        }
    }
    line(&object.to_string());
}

impl Observer for Json {
    fn saved(&self, migration: &VMMigration) {
        let Some(status) = &migration.status else { return };
        let fields = json!({
            "phase": status.phase,
            "progress": status.progress,
            "message": status.message,
            "disks": status.disks,
        });
        tell("status", Some(&key_of(migration)), fields);
    }

    fn event(&self, migration: &VMMigration, event: &Event) {
        let fields = json!({
            "eventType": event.event_type,
            "reason": event.reason,
            "message": event.message,
        });
        tell("event", Some(&key_of(migration)), fields);
    }
}

impl Reporter for Json {
    fn note(&self, key: Option<&Key>, text: &str) {
        tell("note", key, json!({ "message": text }));
    }

    fn summary(&self, endings: &[(Key, Ending, Option<VMMigration>)]) {
        for (key, ending, migration) in endings {
            let result = match ending {
                Ending::Done(Phase::Ready) => "Ready",
                Ending::Done(_) => "Failed",
                Ending::Gone => "Deleted",
                Ending::Stopped | Ending::Lost => "Stopped",
            };
            let status = migration.as_ref().and_then(|migration| migration.status.as_ref());
            tell("result", Some(key), json!({ "result": result, "status": status }));
        }
    }
}
