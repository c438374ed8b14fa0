//! Misspelt fields and unusable names.

use serde_json::Value;

/// The fields of `metadata` that an object can have.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The fields of every object.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// How an error names an object that may yet be malformed.
pub(super) fn name(kind: &str, raw: &Value) -> String {
    match raw["metadata"]["name"].as_str() {
        Some(name) => {
            let namespace = raw["metadata"]["namespace"]
                .as_str()
                .unwrap_or(super::DEFAULT_NAMESPACE);
            format!("{kind} {namespace}/{name}")
        }
        None => kind.to_owned(),
    }
}

/// What is said of every field that the schema does not know.
pub(super) fn unknown(schema: &Value, raw: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let Some(fields) = raw.as_object() else { return found };
    for (name, value) in fields {
        match name.as_str() {
            "metadata" => unknown_metadata(value, &mut found),
            // A status is a server's to write; whatever it holds is not read.
            "apiVersion" | "kind" | "status" => {}
            "spec" => walk(&schema["properties"]["spec"], value, "spec", &mut found),
            _ => found.push(not_known(name, name, &TOP)),
        }
    }
    found
}

/// The same for `metadata`, whose schema is no part of a CRD.
pub(super) fn unknown_metadata(metadata: &Value, found: &mut Vec<String>) {
    for name in metadata.as_object().into_iter().flat_map(|fields| fields.keys()) {
        if !METADATA.contains(&name.as_str()) {
            found.push(not_known(
                &format!("metadata.{name}"),
                name,
                &["name", "namespace", "labels", "annotations"],
            ));
        }
    }
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else {
                return;
            };
            let preserved = schema["x-kubernetes-preserve-unknown-fields"] == true;
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match properties.get(name) {
                    Some(schema) => walk(schema, value, &path, found),
                    None if preserved => {}
                    None => {
                        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                        found.push(not_known(&path, name, &known));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn not_known(path: &str, name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|other| (distance(name, other), other)).min();
    match near {
        Some((steps, other)) if steps <= 2 || other.eq_ignore_ascii_case(name) => {
            format!("the field {path} is not known: did you mean {other}?")
        }
        _ => format!("the field {path} is not known: allowed are {}", known.join(", ")),
    }
}

/// How many letters must be changed, added or removed to make one of the other. (Levenshtein; long names are cut.)
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Refuses a name that Kubernetes would (RFC 1123). Such names are safe as file names, too.
pub(super) fn check_name(field: &str, name: &str, longest: usize) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part =
        |part: &str| !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-');
    if name.len() <= longest && name.split('.').all(part) {
        return Ok(());
    }
    Err(format!(
        "{field} is {name:?}: allowed are 1 to {longest} lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
    ))
}
