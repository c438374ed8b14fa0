//! Runs the schema's bounds and the CEL rules of a CRD over an object, as a cluster would.

use std::fmt;
use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use crate::names::ANNOTATION_BANDWIDTH_LIMIT;
use crate::{ByteRate, ParseRateError, VMMigration, crd};

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, from the root: `spec.storage.bucket`.
    pub field: String,
    /// Its value, where it has a short one.
    pub value: Option<String>,
    /// What is allowed, and what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if let Some(value) = &self.value {
            write!(f, " is {value}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What is wrong with a migration by itself. Empty where all is well.
pub fn migration(object: &VMMigration) -> Vec<Violation> {
    check(object, None)
}

/// The limit that a migration's annotation sets. A cluster does not look at annotations, so whoever goes by it has to.
pub fn bandwidth_limit(object: &VMMigration) -> Result<Option<ByteRate>, Violation> {
    let annotations = object.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(ANNOTATION_BANDWIDTH_LIMIT)) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error: ParseRateError| Violation {
        field: format!("metadata.annotations[{ANNOTATION_BANDWIDTH_LIMIT}]"),
        value: None,
        message: error.to_string(),
    })
}

/// What is wrong with a migration that is to replace `old`: its own rules, and the fields that may not change.
pub fn migration_update(object: &VMMigration, old: &VMMigration) -> Vec<Violation> {
    check(object, Some(old))
}

fn check(object: &VMMigration, old: Option<&VMMigration>) -> Vec<Violation> {
    let (Some(crd), Ok(json), Ok(old)) = (
        crd::of("VMMigration"),
        serde_json::to_value(object),
        old.map(serde_json::to_value).transpose(),
    ) else {
        return vec![unusable("the object cannot be written as JSON")];
    };
    let mut found: Vec<_> = bandwidth_limit(object).err().into_iter().collect();
    bounds(crd.schema(), &json, "", &mut found);
    if found.is_empty() {
        cel(&json, old.as_ref(), &mut found);
    }
    found
}

/// The rules of `VMMigration`, compiled once.
static COMPILED: LazyLock<CompiledSchema> =
    LazyLock::new(|| compile_schema(crd::of("VMMigration").map_or(&Value::Null, crd::Crd::schema)));

static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// Evaluates the CEL rules. A rule that cannot be evaluated counts as broken, never as kept.
fn cel(object: &Value, old: Option<&Value>, found: &mut Vec<Violation>) {
    let Err(errors) = VALIDATOR.validate_compiled(&COMPILED, object, old) else {
        return;
    };
    for error in errors.as_slice() {
        let field = error.field_path.trim_start_matches('.').to_owned();
        if error.kind == ErrorKind::ValidationFailure {
            let value = short_value(lookup(object, &field));
            found.push(Violation {
                field,
                value,
                message: error.message.clone(),
            });
        } else {
            found.push(unusable(&format!(
                "the rule {:?} cannot be evaluated: {}",
                error.rule, error.message
            )));
        }
    }
}

fn unusable(message: &str) -> Violation {
    Violation {
        field: "object".to_owned(),
        value: None,
        message: message.to_owned(),
    }
}

/// Checks lengths, ranges and counts of the schema. Types, enums and patterns were checked when the object was read.
fn bounds(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    if let Some(message) = out_of_bounds(schema, value) {
        found.push(Violation {
            field: path.to_owned(),
            value: short_value(Some(value)),
            message,
        });
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                bounds(&schema["properties"][name], field, &path, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                bounds(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// What bound of this node the value breaks.
fn out_of_bounds(schema: &Value, value: &Value) -> Option<String> {
    let (size, low, high, what) = match value {
        Value::String(text) => (text.chars().count() as f64, "minLength", "maxLength", " characters"),
        Value::Array(items) => (items.len() as f64, "minItems", "maxItems", " entries"),
        Value::Number(number) => (number.as_f64()?, "minimum", "maximum", ""),
        _ => return None,
    };
    let (low, high) = (schema[low].as_f64(), schema[high].as_f64());
    let broken = low.is_some_and(|low| size < low) || high.is_some_and(|high| size > high);
    broken.then(|| match (low, high) {
        (Some(low), Some(high)) => format!("allowed are {low} to {high}{what}"),
        (Some(low), None) => format!("allowed are {low}{what} or more"),
        (_, high) => format!("allowed are at most {}{what}", high.unwrap_or_default()),
    })
}

/// The value at a path like `spec.targetNetworkHints[0].name`.
fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).try_fold(object, |value, step| {
        step.strip_suffix(']')
            .map_or_else(|| value.get(step), |index| value.get(index.parse::<usize>().ok()?))
    })
}

/// A value for a message: what is short as it is, what is long or nested not at all.
fn short_value(value: Option<&Value>) -> Option<String> {
    value
        .filter(|value| !value.is_object() && !value.is_array() && !value.is_null())
        .map(Value::to_string)
        .filter(|text| text.len() <= 120)
}
