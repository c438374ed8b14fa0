//! Writing a status, where it is not so already.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use vmferry_api::names::{GROUP, VERSION};
use vmferry_api::{Condition, Key, Time};

use super::Keeper;
use crate::cache::Cached;
use crate::call::call;
use crate::store::{FIELD_MANAGER, named};

/// What a condition is to say.
pub(super) struct Says {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Says {
    /// As a condition. The time of its last transition stays unless its status flips.
    pub(super) fn condition(self, old: &[Condition], generation: Option<i64>) -> Condition {
        let last = old
            .iter()
            .find(|old| old.type_ == self.kind && old.status == self.status);
        let now = || {
            let now = Timestamp::now();
            Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
        };
        Condition {
            type_: self.kind.to_owned(),
            status: self.status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            last_transition_time: last.map_or_else(now, |last| last.last_transition_time.clone()),
            observed_generation: generation,
        }
    }
}

impl Keeper {
    /// Writes fields and a condition of an object's status; a field that is null is taken away. A failure is tried again at the
    /// next look.
    pub(super) async fn write<K: Cached + serde::Serialize>(
        &self,
        key: &Key,
        object: &K,
        fields: Map<String, Value>,
        condition: Condition,
    ) {
        let found = serde_json::to_value(object).unwrap_or_default();
        if says(&found["status"], &fields, &condition) {
            return;
        }
        let mut status: Map<_, _> = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        status.insert("conditions".to_owned(), json!([condition]));
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": K::kind(&()),
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": object.meta().uid },
            "status": status,
        });
        let api = self.api::<K>(&key.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let patched = api.patch_status(&key.name, &params, &patch);
        if let Err(error) = call("save the status of", named::<K>(key), patched).await {
            tracing::warn!(%error, "a status is not kept up to date");
        }
    }
}

/// Whether a status says all of it already.
fn says(status: &Value, fields: &Map<String, Value>, condition: &Condition) -> bool {
    let condition = json!(condition);
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    fields.iter().all(|(name, value)| status[name] == *value) && conditions.contains(&condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(status: &'static str, message: &str) -> Says {
        Says {
            kind: "ProviderAvailable",
            status,
            reason: "Connected",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_transition_is_one_of_the_status_and_the_same_is_not_written_again() {
        let mut first = available("True", "a").condition(&[], Some(1));
        first.last_transition_time = Time(Timestamp::UNIX_EPOCH);
        let old = [first.clone()];
        let same = available("True", "a").condition(&old, Some(1));
        assert_eq!(same, first);
        let other_text = available("True", "b").condition(&old, Some(1));
        assert_eq!(other_text.last_transition_time, first.last_transition_time);
        let flipped = available("False", "a").condition(&old, Some(1));
        assert_ne!(flipped.last_transition_time, first.last_transition_time);

        let fields = Map::from_iter([("healthy".to_owned(), json!(true))]);
        let status = json!({"healthy": true, "other": 1, "conditions": [first]});
        assert!(says(&status, &fields, &same));
        assert!(!says(&status, &fields, &flipped));
        assert!(!says(&json!({"conditions": [same]}), &fields, &same));
        assert!(!says(&Value::Null, &fields, &same));

        let without = Map::from_iter([("other".to_owned(), Value::Null)]);
        assert!(!says(&status, &without, &same));
        assert!(says(&json!({"conditions": [same.clone()]}), &without, &same));
    }
}
