//! What a Provider's `spec.defaults` says beyond what all of them have.

use serde_json::Value;
use vmferry_api::Provider;
use vmferry_api::manifest::key_of;
use vmferry_provider::{Error, Kind};

/// The fields of `spec.defaults`, or of an object in it.
pub(super) struct Defaults<'p> {
    provider: &'p Provider,
    path: String,
    fields: Option<&'p dyn Fields>,
}

/// What fields can be looked up in.
trait Fields {
    fn field(&self, name: &str) -> Option<&Value>;
}

impl Fields for std::collections::BTreeMap<String, Value> {
    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl Fields for serde_json::Map<String, Value> {
    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl<'p> Defaults<'p> {
    /// Those of a provider.
    pub(super) fn of(provider: &'p Provider) -> Self {
        let defaults = provider.spec.defaults.as_ref();
        Self {
            provider,
            path: "spec.defaults".to_owned(),
            fields: defaults.map(|defaults| &defaults.other as &dyn Fields),
        }
    }

    /// An object among them; without fields where there is none.
    pub(super) fn object(&self, name: &str) -> Result<Self, Error> {
        let fields = match self.field(name) {
            None => None,
            Some(Value::Object(fields)) => Some(fields as &dyn Fields),
            Some(_) => return Err(self.wrong(name, "an object")),
        };
        Ok(Self {
            provider: self.provider,
            path: format!("{}.{name}", self.path),
            fields,
        })
    }

    /// Whether there is anything at all.
    pub(super) fn is_there(&self) -> bool {
        self.fields.is_some()
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name, "a text that is not empty")),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<String, Error> {
        self.text(name)?
            .ok_or_else(|| self.wrong(name, "a text that is not empty"))
    }

    /// A port number.
    pub(super) fn port(&self, name: &str) -> Result<Option<u16>, Error> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let port = value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        port.map(Some)
            .ok_or_else(|| self.wrong(name, "a number from 1 to 65535"))
    }

    fn field(&self, name: &str) -> Option<&'p Value> {
        self.fields?.field(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, allowed: &str) -> Error {
        let found = self.field(name).map_or("not set".to_owned(), Value::to_string);
        Error::new(Kind::Invalid, "use", format!("Provider {}", key_of(self.provider)))
            .detail(format!("{}.{name} is {found}", self.path))
            .remedy(format!("set it to {allowed}"))
    }
}
