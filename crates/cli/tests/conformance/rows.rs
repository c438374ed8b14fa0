//! `docs/conformance.md`: every test that it names is there, and every name of the API that the reference has is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vmferry_api::names;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(project().join("docs/conformance.md")).unwrap()
}

/// The tests that the page names: what stands between backquotes and has a path, two colons and a name.
fn named(page: &str) -> BTreeSet<(String, String)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| text.split_once("::"))
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|extension| extension == "rs"))
        .map(|(path, name)| (path.to_owned(), name.to_owned()))
        .collect()
}

/// Whether a source has a test of this name: a function with the attribute, or a line of a table from which tests are made.
fn has_test(source: &str, name: &str) -> bool {
    let made = source.contains("$(#[test] fn $test()") && source.contains(&format!("\n    {name}: "));
    let written = source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        // The attribute stands right before the function.
        let attributes = source[..at].rsplit("\n\n").next().unwrap_or_default();
        ["#[test]", "#[tokio::test"]
            .iter()
            .any(|test| attributes.contains(test))
    });
    made || written
}

#[test]
fn every_test_that_is_named_is_there() {
    let tests = named(&page());
    assert!(tests.len() > 30, "{}", tests.len());
    for (path, name) in tests {
        let source = fs::read_to_string(project().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(has_test(&source, &name), "{path} has no test {name}");
    }
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let source = "#[test]\nfn a() {}\n\nfn b() {}\n\n    $(#[test] fn $test() { x($p); })*\n\ny! {\n    c: \"C\",\n}\n";
    assert_eq!(
        ["a", "b", "c", "d"].map(|name| has_test(source, name)),
        [true, false, true, false]
    );
}

#[test]
fn every_row_has_a_test() {
    let page = page();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let (mut heads, mut count) = (0, 0);
    for row in rows {
        if row.ends_with("| test |") {
            heads += 1;
            continue;
        }
        count += 1;
        assert!(row.contains(".rs::"), "no test: {row}");
    }
    assert!(heads >= 8 && count > 90, "{heads} tables, {count} rows");
}

/// What the schema, the names and the phases have must have a row.
#[test]
fn every_name_of_the_api_has_a_row() {
    let page = page();
    let mut wanted: Vec<String> = Vec::new();
    let schema = vmferry_api::crd::of("VMMigration").unwrap().schema();
    for (part, own) in [("spec", true), ("status", true)] {
        let fields = schema["properties"][part]["properties"].as_object().unwrap();
        wanted.extend(fields.keys().filter(|_| own).map(|name| format!("{part}.{name}")));
    }
    for nested in ["storage", "cleanupPolicy", "retryPolicy", "targetResourceHints"] {
        let fields = &schema["properties"]["spec"]["properties"][nested]["properties"];
        wanted.extend(
            fields
                .as_object()
                .unwrap()
                .keys()
                .map(|name| format!("spec.{nested}.{name}")),
        );
    }
    wanted.extend(
        vmferry_engine::phase::table()
            .iter()
            .map(|row| format!("{:?}", row.phase)),
    );
    wanted.extend(
        [
            names::FINALIZER,
            names::LABEL_TYPE,
            names::LABEL_SOURCE_PROVIDER,
            names::LABEL_TARGET_PROVIDER,
            names::ANNOTATION_REQUESTOR,
            names::ANNOTATION_REASON,
            names::ANNOTATION_TICKET,
            names::ANNOTATION_RETRY,
            names::ANNOTATION_CANCEL,
            names::ANNOTATION_BANDWIDTH_LIMIT,
        ]
        .map(str::to_owned),
    );
    wanted.extend(super::telling::EVENTS.iter().map(|(_, reason, _)| (*reason).to_owned()));
    wanted.extend(super::telling::CONDITIONS.iter().map(|name| (*name).to_owned()));
    for name in wanted {
        assert!(
            page.contains(&format!("| `{name}`")),
            "docs/conformance.md has no row for {name}"
        );
    }
}
