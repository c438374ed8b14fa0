//! One document of a file: split off, and read into a type with errors that name the field and the line.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ManifestError, Origin, Source};

/// A document.
pub(super) struct Document<'a> {
    /// Where it stands.
    pub origin: Origin,
    /// What it says.
    pub body: Body<'a>,
}

/// What a document says.
pub(super) enum Body<'a> {
    /// Text that follows `line` lines of the file.
    Text {
        /// The text.
        text: &'a str,
        /// How many lines stand before it.
        before: usize,
    },
    /// An item of a `List`.
    Item(Value),
}

/// What every document starts with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    /// Group and version.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

/// Splits a text at its `---` lines. In YAML such a line always ends a document, whatever it stands in. Documents without
/// content are passed over, but counted.
pub(super) fn split(source: &Source) -> Vec<Document<'_>> {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut documents = Vec::new();
    let (mut start, mut before, mut offset, mut number) = (0, 0, 0, 1);
    let mut push = |text, before, number: &mut usize, ended: bool| {
        if has_content(text) {
            let origin = Origin {
                source: source.name.clone(),
                document: *number,
                item: None,
            };
            documents.push(Document {
                origin,
                body: Body::Text { text, before },
            });
            *number += 1;
        } else if ended && before > 0 {
            *number += 1;
        }
    };
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            push(&text[start..offset], before, &mut number, true);
            // What follows the dashes on their line belongs to the next document.
            start = offset + 3;
            before = line_number;
        }
        offset += line.len();
    }
    push(&text[start..], before, &mut number, false);
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is anything but comments, directives and document ends.
fn has_content(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with(['#', '%']) && line != "...")
}

impl Document<'_> {
    /// Whether it is an item of a `List`.
    pub fn is_item(&self) -> bool {
        matches!(self.body, Body::Item(_))
    }

    /// An error about this document.
    pub fn error(&self, detail: impl Into<String>) -> ManifestError {
        ManifestError::new(self.origin.clone(), detail)
    }

    /// Which kind it declares.
    pub fn header(&self) -> Result<Header, ManifestError> {
        let header: Header = self.parse_quietly()?;
        for (field, value) in [("apiVersion", &header.api_version), ("kind", &header.kind)] {
            if value.is_empty() {
                return Err(self.error(format!(
                    "{field} is missing: every document says its apiVersion and kind"
                )));
            }
        }
        Ok(header)
    }

    /// Reads it as `T`. An error shows the value that is wrong.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        self.read(true)
    }

    /// Reads it as `T`. An error shows nothing of the text but names of fields.
    pub fn parse_quietly<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        self.read(false)
    }

    fn read<T: DeserializeOwned>(&self, show: bool) -> Result<T, ManifestError> {
        match &self.body {
            Body::Text { text, before } => from_yaml(text, show).map_err(|fault| {
                self.error(fault.detail)
                    .at(fault.line.map(|line| line + u64::try_from(*before).unwrap_or_default()))
            }),
            Body::Item(value) => serde_path_to_error::deserialize(value).map_err(|error| {
                let path = error.path().to_string();
                self.error(describe(&path, None, &error.inner().to_string(), show))
            }),
        }
    }
}

/// Why a text could not be read.
struct Unreadable {
    /// Line of the text, from 1.
    line: Option<u64>,
    detail: String,
}

fn from_yaml<T: DeserializeOwned>(text: &str, show: bool) -> Result<T, Unreadable> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
    };
    let mut path = String::new();
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    result.map_err(|error| {
        let location = error.location();
        let value = location
            .and_then(|location| location.span().byte_offset().zip(location.span().byte_len()))
            .and_then(|(start, len)| {
                let start = usize::try_from(start).ok()?;
                text.get(start..start.checked_add(usize::try_from(len).ok()?)?)
            });
        let message = error.without_snippet().to_string();
        let message = message
            .rsplit_once(" at line ")
            .map_or(message.as_str(), |(message, _)| message);
        Unreadable {
            line: location.map(|location| location.line()),
            detail: describe(&path, value, message, show),
        }
    })
}

/// One sentence: field, value, and what is allowed.
fn describe(path: &str, value: Option<&str>, message: &str, show: bool) -> String {
    let message = match message {
        message if !show => quiet(message),
        message if message.starts_with("invalid u") => "it must be a whole number, 0 or more".into(),
        message if message.starts_with("invalid i") => "it must be a whole number".into(),
        message if message.contains("expected string scalar") => "it must be a text".into(),
        message if message.starts_with("duplicate mapping key") => "the field is given twice".into(),
        message => message.to_owned(),
    };
    let value =
        value.filter(|value| show && !value.is_empty() && value.len() <= 60 && !message.contains("missing field"));
    match (path, value) {
        ("." | "" | "?", _) => message,
        (path, Some(value)) if !message.contains(value) => format!("{path} is {value}: {message}"),
        (path, _) => format!("{path}: {message}"),
    }
}

/// The message where nothing of the text may be shown. What is wrong with the YAML itself, and which field is missing,
/// is known without the text.
fn quiet(message: impl Display) -> String {
    let message = message.to_string();
    let plain = message.starts_with("missing field")
        || !(message.contains('"') || message.contains('`') || message.contains("invalid"));
    if plain && !message.starts_with("duplicate mapping key") {
        message
    } else if message.starts_with("duplicate mapping key") {
        "a field is given twice".to_owned()
    } else {
        "the value is not of the right form".to_owned()
    }
}
