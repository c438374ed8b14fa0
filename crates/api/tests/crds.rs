//! The CRDs: committed, structural, with every rule in its place.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use std::path::{Path, PathBuf};

use kube::core::cel::{CompiledSchema, compile_schema, estimate_rule_cost};
use serde_json::Value;
use vmferry_api::{crd, rules};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds")
}

#[test]
fn the_committed_crds_are_those_of_the_code() {
    for crd in crd::all() {
        let committed = std::fs::read_to_string(folder().join(crd.file)).unwrap_or_default();
        assert!(
            committed == crd.to_yaml().unwrap(),
            "deploy/crds/{} is not what the code says: run `cargo run -p vmferry -- crds --write deploy/crds`",
            crd.file
        );
    }
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(
        files,
        crd::all().len(),
        "deploy/crds holds a file that no CRD is written to"
    );
}

#[test]
fn what_is_committed_reads_back_as_the_same_crd() {
    for crd in crd::all() {
        let read: Value = serde_saphyr::from_str(&crd.to_yaml().unwrap()).unwrap();
        assert_eq!(read, crd.json);
    }
}

#[test]
fn every_rule_is_in_the_crd() {
    let text = crd::of("VMMigration").unwrap().json.to_string();
    assert_eq!(text.matches("\"rule\":").count(), rules::MIGRATION.len());
    for rule in rules::MIGRATION {
        assert!(
            text.contains(&serde_json::to_string(rule.rule).unwrap()),
            "{}",
            rule.rule
        );
        assert!(
            !rule.message.contains('\n'),
            "Kubernetes refuses a message of several lines: {}",
            rule.message
        );
    }
}

/// The rules of Kubernetes for a structural schema, as far as ours could break them.
#[test]
fn the_schemas_are_structural() {
    fn walk(node: &Value, path: &str) {
        let object = node
            .as_object()
            .unwrap_or_else(|| panic!("{path} is no object: {node}"));
        let preserved = object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        assert!(object.contains_key("type") || preserved, "{path} has no type");
        assert!(
            !(object.contains_key("properties") && object.contains_key("additionalProperties")),
            "{path} has both properties and additionalProperties"
        );
        for word in [
            "$ref",
            "definitions",
            "oneOf",
            "anyOf",
            "allOf",
            "not",
            "const",
            "nullable",
        ] {
            assert!(!object.contains_key(word), "{path} has {word}");
        }
        if let Some(format) = object.get("format").and_then(Value::as_str) {
            assert!(
                ["int32", "int64", "double", "date-time", "byte"].contains(&format),
                "{path} has the format {format}"
            );
        }
        for (name, child) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            walk(child, &format!("{path}.{name}"));
        }
        for child in ["items", "additionalProperties"] {
            if let Some(child_node) = object.get(child).filter(|node| node.is_object()) {
                walk(child_node, &format!("{path}.{child}"));
            }
        }
    }
    for crd in crd::all() {
        walk(crd.schema(), crd.kind);
    }
}

/// Without a bound on what a rule walks, a cluster refuses the CRD.
#[test]
fn what_the_rules_walk_is_bounded() {
    fn walk(node: &Value, path: &str) {
        match node["type"].as_str() {
            Some("string") if node["enum"].is_null() => {
                assert!(node["maxLength"].is_number(), "{path} has no maxLength");
            }
            Some("array") => assert!(node["maxItems"].is_number(), "{path} has no maxItems"),
            _ => {}
        }
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            walk(child, &format!("{path}.{name}"));
        }
        if node["items"].is_object() {
            walk(&node["items"], &format!("{path}[]"));
        }
    }
    walk(&crd::of("VMMigration").unwrap().schema()["properties"]["spec"], "spec");
}

/// A cluster estimates what a rule costs at worst, and refuses the CRD where that is too much.
#[test]
fn no_rule_costs_more_than_a_cluster_allows() {
    fn walk(compiled: &CompiledSchema, path: &str, seen: &mut usize) {
        assert!(!compiled.has_errors(), "{path}: {:?}", compiled.compilation_errors());
        *seen += compiled.validations.len();
        for (name, child) in &compiled.properties {
            walk(child, &format!("{path}.{name}"), seen);
        }
        if let Some(items) = &compiled.items {
            walk(items, &format!("{path}[]"), seen);
        }
    }
    let schema = compile_schema(crd::of("VMMigration").unwrap().schema());
    let mut seen = 0;
    walk(&schema, "", &mut seen);
    assert_eq!(seen, rules::MIGRATION.len());
    for rule in rules::MIGRATION {
        let node = rule.at.iter().fold(&schema, |node, step| match *step {
            "[]" => node.items.as_deref().unwrap(),
            name => &node.properties[name],
        });
        let warnings = estimate_rule_cost(rule.rule, node);
        assert!(warnings.is_empty(), "{}: {warnings:?}", rule.rule);
    }
}

#[test]
fn kubectl_get_prints_what_one_wants_to_know() {
    let crd = crd::of("VMMigration").unwrap();
    let columns = crd.json["spec"]["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap();
    let names = |wide: bool| -> Vec<_> {
        let of_kind = columns.iter().filter(|column| (column["priority"] == 1) == wide);
        of_kind.map(|column| column["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names(false), ["Phase", "Progress", "Source", "Target", "Rate", "Age"]);
    assert_eq!(names(true), ["From", "To", "Checksum", "Message"]);
    assert_eq!(crd.json["spec"]["names"]["shortNames"][0], "vmmig");
    assert_eq!(crd.json["spec"]["names"]["categories"][0], "virtrigaud");
}

#[test]
fn the_reference_is_met() {
    let crd = crd::of("VMMigration").unwrap();
    assert_eq!(crd.json["metadata"]["name"], "vmmigrations.infra.virtrigaud.io");
    let version = &crd.json["spec"]["versions"][0];
    assert_eq!(version["name"], "v1beta1");
    assert!(version["subresources"]["status"].is_object());
    let spec = &crd.schema()["properties"]["spec"]["properties"];
    assert_eq!(spec["retryPolicy"]["properties"]["maxAttempts"]["default"], 3);
    assert_eq!(spec["retryPolicy"]["properties"]["backoffDuration"]["default"], "5m");
    assert_eq!(
        spec["retryPolicy"]["properties"]["maxBackoffDuration"]["default"],
        "30m"
    );
    assert_eq!(
        spec["cleanupPolicy"]["properties"]["deleteIntermediate"]["default"],
        true
    );
    assert_eq!(spec["cleanupPolicy"]["properties"]["deleteSnapshot"]["default"], true);
    assert_eq!(spec["cleanupPolicy"]["properties"]["deleteSource"]["default"], false);
    let conditions = &crd.schema()["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
}

#[test]
fn what_is_not_known_of_providers_and_virtual_machines_is_preserved() {
    for (kind, paths) in [
        (
            "Provider",
            &[
                "/properties/spec",
                "/properties/spec/properties/defaults",
                "/properties/status",
            ][..],
        ),
        ("VirtualMachine", &["/properties/spec", "/properties/status"][..]),
    ] {
        for path in paths {
            let node = crd::of(kind).unwrap().schema().pointer(path).unwrap();
            assert_eq!(node["x-kubernetes-preserve-unknown-fields"], true, "{kind} {path}");
        }
    }
}
