//! Who wrote an object's status before.

use serde_json::Value;
use vmferry_api::ObjectMeta;

use super::Upkeep;
use crate::store::FIELD_MANAGER;

/// A field of the status, as managed fields name it.
pub(super) enum Field {
    /// `f:healthy`.
    Plain(&'static str),
    /// A condition by its type.
    Condition(&'static str),
}

/// Whether the operator may write these fields of an object's status.
pub(super) fn may_write(mode: Upkeep, meta: &ObjectMeta, fields: &[Field]) -> bool {
    match mode {
        Upkeep::Manage => true,
        Upkeep::Read => false,
        Upkeep::Auto => !is_anothers(meta, fields),
    }
}

/// Whether somebody else wrote any of these fields.
fn is_anothers(meta: &ObjectMeta, fields: &[Field]) -> bool {
    let entries = meta.managed_fields.iter().flatten();
    let mut others = entries.filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER));
    others.any(|entry| {
        let status = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:status"));
        status.is_some_and(|status| fields.iter().any(|field| field.is_in(status)))
    })
}

impl Field {
    fn is_in(&self, status: &Value) -> bool {
        match self {
            Self::Plain(name) => status.get(format!("f:{name}")).is_some(),
            Self::Condition(name) => match status.get("f:conditions") {
                // A list that is no map has one owner.
                Some(Value::Object(conditions)) if conditions.is_empty() => true,
                Some(conditions) => conditions.get(format!("k:{{\"type\":\"{name}\"}}")).is_some(),
                None => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: [Field; 2] = [Field::Plain("healthy"), Field::Condition("ProviderAvailable")];

    fn written(manager: &str, status: &Value) -> ObjectMeta {
        let entry = json!({"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": status}});
        serde_json::from_value(json!({ "managedFields": [entry] })).unwrap()
    }

    #[test]
    fn what_another_wrote_is_left_to_it() {
        let healthy = json!({"f:healthy": {}});
        let available = json!({"f:conditions": {"k:{\"type\":\"ProviderAvailable\"}": {".": {}}}});
        let runtime = json!({"f:conditions": {"k:{\"type\":\"ProviderRuntimeReady\"}": {".": {}}}});
        let atomic = json!({"f:conditions": {}});
        for (manager, status, may) in [
            ("virtrigaud-manager", &healthy, false),
            ("virtrigaud-manager", &available, false),
            ("virtrigaud-manager", &atomic, false),
            ("virtrigaud-manager", &runtime, true),
            (FIELD_MANAGER, &healthy, true),
            (FIELD_MANAGER, &available, true),
        ] {
            let meta = written(manager, status);
            assert_eq!(may_write(Upkeep::Auto, &meta, &FIELDS), may, "{manager} {status}");
            assert!(may_write(Upkeep::Manage, &meta, &FIELDS));
            assert!(!may_write(Upkeep::Read, &meta, &FIELDS));
        }
        assert!(may_write(Upkeep::Auto, &ObjectMeta::default(), &FIELDS));
    }
}
