//! Secrets, as users write them. No error here shows any of the text.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::{ManifestError, fields};
use crate::{ObjectMeta, Secret};

/// A Secret, its values still as text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "type")]
    type_: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
}

/// Reads a Secret. `stringData` wins over `data`, as in Kubernetes.
pub(super) fn read(document: &Document<'_>) -> Result<Secret, ManifestError> {
    let raw: Value = document.parse_quietly()?;
    let name = fields::name("Secret", &raw);
    let mut unknown = Vec::new();
    fields::unknown_metadata(&raw["metadata"], &mut unknown);
    unknown.extend(unknown_field(&raw));
    if let Some(detail) = unknown.into_iter().next() {
        return Err(document.error(detail).of(name));
    }
    let manifest: Manifest = document.parse_quietly().map_err(|error| error.of(name.clone()))?;
    let mut data = BTreeMap::new();
    for (key, text) in manifest.data.unwrap_or_default() {
        let Some(bytes) = decode(&text) else {
            return Err(document
                .error(format!(
                    "data.{key} is not base64: encode it, or write the plain text under stringData"
                ))
                .of(name));
        };
        data.insert(key, bytes);
    }
    for (key, text) in manifest.string_data.unwrap_or_default() {
        data.insert(key, ByteString(text.into_bytes()));
    }
    Ok(Secret {
        metadata: manifest.metadata,
        data: Some(data),
        type_: manifest.type_,
        immutable: manifest.immutable,
        ..Secret::default()
    })
}

fn unknown_field(raw: &Value) -> Option<String> {
    const KNOWN: [&str; 7] = [
        "apiVersion",
        "kind",
        "metadata",
        "data",
        "stringData",
        "type",
        "immutable",
    ];
    raw.as_object()?
        .keys()
        .find(|name| !KNOWN.contains(&name.as_str()))
        .map(|name| format!("the field {name} is not known: allowed are {}", KNOWN.join(", ")))
}

/// Decodes base64, line breaks passed over.
fn decode(text: &str) -> Option<ByteString> {
    let text: String = text.split_whitespace().collect();
    serde_json::from_value(Value::String(text)).ok()
}
