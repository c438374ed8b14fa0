//! The values in a Secret.

use std::collections::BTreeMap;

use secrecy::SecretString;
use vmferry_api::Secret;
use vmferry_api::manifest::key_of;

/// The values of a Secret, or of none.
#[derive(Clone, Copy)]
pub struct Values<'s> {
    secret: Option<&'s Secret>,
}

/// A value that is not text.
#[derive(Debug, PartialEq, Eq)]
pub struct NotText {
    /// Which: the key and its Secret.
    pub object: String,
}

impl NotText {
    /// What is wrong with it.
    pub const DETAIL: &'static str = "it is not UTF-8 text";
    /// What to do about it.
    pub const REMEDY: &'static str = "write it under stringData";
}

impl<'s> Values<'s> {
    pub fn of(secret: Option<&'s Secret>) -> Self {
        Self { secret }
    }

    /// How messages name it.
    pub fn name(self) -> String {
        self.secret.map(|secret| key_of(secret).to_string()).unwrap_or_default()
    }

    /// A value as it is.
    pub fn text(self, key: &str) -> Result<Option<String>, NotText> {
        let data = self.secret.and_then(|secret| secret.data.as_ref());
        let Some(bytes) = data.and_then(|data| data.get(key)) else {
            return Ok(None);
        };
        match String::from_utf8(bytes.0.clone()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(NotText {
                object: format!("the key {key} of Secret {}", self.name()),
            }),
        }
    }

    /// A value without the line breaks at its end, which editors and `echo` leave.
    pub fn line(self, key: &str) -> Result<Option<String>, NotText> {
        let text = self.text(key)?;
        Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Those of these values that are there, as they are.
    pub fn texts(self, keys: &[&'static str]) -> Result<BTreeMap<&'static str, String>, NotText> {
        let text = |key: &&'static str| self.text(key).transpose().map(|text| Ok((*key, text?)));
        keys.iter().filter_map(text).collect()
    }

    /// A line that nobody may see.
    pub fn hidden(self, key: &str) -> Result<Option<SecretString>, NotText> {
        Ok(self.line(key)?.map(SecretString::from))
    }
}
