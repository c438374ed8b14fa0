//! Manifests, good and bad, as users write them.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use proptest::prelude::*;
use vmferry_api::manifest::{Manifests, Source};
use vmferry_api::{Key, PowerStateSpec, ProviderType};

fn parse(text: &str) -> Result<Manifests, Vec<String>> {
    Manifests::parse(&[Source {
        name: "web.yaml".to_owned(),
        text: text.to_owned(),
    }])
    .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn error(text: &str) -> String {
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

const MIGRATION: &str = "apiVersion: infra.virtrigaud.io/v1beta1
kind: VMMigration
metadata:
  name: web
spec:
  sourceName: web
  sourceNamespace: default
  targetProviderRef: {name: b}
  targetName: web-2
  storage: {type: nfs, path: /mnt/staging}
";

#[test]
fn the_example_of_the_reference_is_read() {
    let manifests = parse(include_str!("manifests/reference.yaml")).unwrap();
    let migration = &manifests.migrations[&Key::new("databases", "production-db-migration")].object;
    assert_eq!(migration.spec.retry_policy.max_attempts, 5);
    assert_eq!(migration.spec.retry_policy.max_backoff_duration.to_string(), "1h");
    assert_eq!(migration.spec.target_network_hints.len(), 2);
    assert_eq!(migration.status, None, "a status is not the user's to say");
    assert_eq!(manifests.secrets.len(), 3);
}

#[test]
fn manifests_that_users_have_are_read_and_preserved() {
    let manifests = parse(include_str!("manifests/existing.yaml")).unwrap();
    let provider = &manifests.providers[&Key::new("default", "kvm-a")].object;
    assert_eq!(provider.spec.provider_type, ProviderType::Libvirt);
    for kept in ["runtime", "rateLimit", "healthCheck", "connectionPooling"] {
        assert!(provider.spec.other.contains_key(kept), "{kept}");
    }
    let defaults = provider.spec.defaults.as_ref().unwrap();
    assert_eq!(defaults.datastore.as_deref(), Some("local"));
    assert_eq!(defaults.other["cluster"], "c1");
    let vm = &manifests.virtual_machines[&Key::new("default", "web")].object;
    assert_eq!(vm.spec.power_state, Some(PowerStateSpec::On));
    for kept in ["imageRef", "disks", "resources", "placement"] {
        assert!(vm.spec.other.contains_key(kept), "{kept}");
    }
    assert_eq!(vm.spec.networks[0].mac_address.as_deref(), Some("52:54:00:00:00:01"));
    assert_eq!(vm.status.as_ref().unwrap().id.as_deref(), Some("web-domain"));
}

#[test]
fn what_a_server_fills_in_is_left_out() {
    let text = MIGRATION.replace(
        "  name: web\nspec",
        "  name: web\n  uid: u\n  resourceVersion: \"7\"\n  generation: 4\n  finalizers: [x]\n  creationTimestamp: 2026-01-01T00:00:00Z\n  labels: {app: x}\nspec",
    );
    let manifests = parse(&text).unwrap();
    let metadata = &manifests.migrations.values().next().unwrap().object.metadata;
    assert_eq!(
        (&metadata.uid, &metadata.generation, &metadata.finalizers),
        (&None, &None, &None)
    );
    assert_eq!(metadata.labels.as_ref().unwrap()["app"], "x");
    assert_eq!(metadata.namespace.as_deref(), Some("default"));
}

#[test]
fn each_mistake_names_file_document_object_and_field() {
    let second = |text: &str| format!("{}---\n{text}", MIGRATION.replace("name: web\n", "name: other\n"));
    for (from, to, says) in [
        (
            "targetName",
            "targetNme",
            &["VMMigration default/web", "spec.targetNme", "did you mean targetName?"][..],
        ),
        ("path: /mnt", "pth: /mnt", &["spec.storage.pth", "did you mean path?"]),
        (
            "spec:",
            "spec:\n  colour: red",
            &["spec.colour", "allowed are", "cleanupPolicy"],
        ),
        (
            "  name: web\n",
            "  name: web\n  namspace: x\n",
            &["metadata.namspace", "namespace"],
        ),
        ("metadata:", "extra: 1\nmetadata:", &["the field extra"]),
        (
            "  sourceName: web\n",
            "",
            &["missing field `sourceName`", "VMMigration default/web"],
        ),
        (
            "type: nfs",
            "type: nfsx",
            &["spec.storage.type", "nfsx", "s3, http, nfs", "line 21"],
        ),
        (
            "spec:",
            "spec:\n  retryPolicy: {backoffDuration: 5 minutes}",
            &["spec.retryPolicy.backoffDuration", "5 minutes", "1h30m"],
        ),
        (
            "spec:",
            "spec:\n  retryPolicy: {maxAttempts: -1}",
            &["spec.retryPolicy.maxAttempts is -1", "0 or more"],
        ),
        (
            "sourceNamespace: default",
            "sourceNamespace: []",
            &["spec.sourceNamespace", "text"],
        ),
        (
            "  sourceName: web\n",
            "  sourceName: web\n  sourceName: web\n",
            &["twice"],
        ),
        (
            "kind: VMMigration",
            "kind: Deployment",
            &["Deployment", "not known", "VMMigration, Provider"],
        ),
        (
            "v1beta1",
            "v1alpha9",
            &[
                "infra.virtrigaud.io/v1alpha9 VMMigration",
                "infra.virtrigaud.io/v1beta1",
            ],
        ),
        ("kind: VMMigration\n", "", &["kind is missing"]),
        ("  name: web\n", "  generateName: web-\n", &["metadata.name is missing"]),
        (
            "  name: web\n",
            "  name: ../../etc\n",
            &["metadata.name", "../../etc", "lower-case"],
        ),
        (
            "  name: web\n",
            "  name: web\n  namespace: A\n",
            &["metadata.namespace"],
        ),
        (
            "path: /mnt/staging",
            "path: mnt",
            &["spec.storage.path is \"mnt\"", "absolute"],
        ),
        ("metadata:", "metadata: [", &["line"]),
    ] {
        let text = MIGRATION.replacen(from, to, 1);
        assert_ne!(text, MIGRATION);
        let error = error(&second(&text));
        assert!(error.starts_with("web.yaml, document 2"), "{error}");
        for word in says {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    }
}

#[test]
fn two_documents_of_one_name_are_refused() {
    let error = error(&format!("{MIGRATION}---\n{MIGRATION}"));
    for word in [
        "document 2",
        "VMMigration default/web",
        "declared already in web.yaml, document 1",
    ] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = format!(
        "{}---\n{}---\nkind: X\n",
        MIGRATION.replace("targetName", "targetNme"),
        MIGRATION.replace("name: web\n", "name: b\n").replace("/mnt", "mnt")
    );
    assert_eq!(parse(&text).unwrap_err().len(), 3);
}

#[test]
fn separators_comments_and_empty_documents_are_no_objects() {
    let text = format!("# head\n---\n---\n# nothing\n--- # named\n{MIGRATION}\n...\n---\r\n\n");
    assert_eq!(parse(&text).unwrap().migrations.len(), 1);
    assert!(parse("").unwrap().is_empty());
    assert!(parse("\u{feff}# only\n").unwrap().is_empty());
}

#[test]
fn crlf_and_byte_order_marks_are_fine() {
    let text = format!("\u{feff}{}", MIGRATION.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap().migrations.len(), 1);
}

#[test]
fn words_that_yaml_1_1_takes_for_booleans_are_texts() {
    let manifests = parse(&MIGRATION.replace("targetName: web-2", "targetName: yes")).unwrap();
    assert_eq!(
        manifests.migrations.values().next().unwrap().object.spec.target_name,
        "yes"
    );
}

#[test]
fn a_list_holds_objects() {
    let indented = format!("    {}", MIGRATION.trim_end().replace('\n', "\n    "));
    let item = indented.replacen("    apiVersion", "  - apiVersion", 1);
    let list = format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{item}");
    assert_eq!(parse(&list).unwrap().migrations.len(), 1);
    let error = error(&list.replace("targetName", "targetNme"));
    assert!(error.starts_with("web.yaml, document 1, item 1"), "{error}");
}

const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: s}
";

#[test]
fn secrets_are_read_in_both_forms() {
    let text = format!(
        "{SECRET}type: Opaque\ndata:\n  a: aHVu\n  b: |\n    aHVu\n    dGVy\nstringData: {{c: 0012, b: wins}}\n"
    );
    let manifests = parse(&text).unwrap();
    let data = manifests.secrets[&Key::new("default", "s")]
        .object
        .data
        .as_ref()
        .unwrap();
    assert_eq!(data["a"].0, b"hun");
    assert_eq!(data["b"].0, b"wins");
    assert_eq!(data["c"].0, b"0012");
}

#[test]
fn an_error_about_a_secret_shows_nothing_of_it() {
    for text in [
        "stringData: hunter2",
        "stringData: [hunter2]",
        "stringData: {password: [hunter2]}",
        "stringData: {password: {hunter2: x}}",
        "data: {password: hunter2!}",
        "data: {password: \"hunter2ü\"}",
        "stringData: {password: \"hunter2}",
        "stringData: {password: &hunter2 a, b: *hunter3}",
        "stringData:\n  password: x\n hunter2: [",
        "stringData: {password: hunter2: hunter2}",
        "stringData: {a: !hunter2 hunter2, a: hunter2}",
        "type: [hunter2]\nstringData: {a: hunter2}",
    ] {
        let error = parse(&format!("{SECRET}{text}\n")).err().unwrap_or_default().join("\n");
        assert!(!error.contains("hunter"), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(apiVersion: v1\nkind: (Secret|List|Provider)\n|---|\n|items:|- |[a-z]{1,4}: |[\\[\\]{}&*!|>'\",#%@`]|\\PC|[ \n\t]){0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_damage_to_a_manifest_makes_it_panic(at in 0..MIGRATION.len(), len in 0_usize..12, junk in "\\PC{0,6}") {
        let mut text = MIGRATION.to_owned();
        text.replace_range(at..(at + len).min(MIGRATION.len()), &junk);
        let _ = parse(&text);
    }

    #[test]
    fn a_field_that_is_not_known_never_passes(name in "[a-z]{1,12}") {
        prop_assume!(name != "storage");
        let text = MIGRATION.replace("spec:", &format!("spec:\n  {name}: 1"));
        prop_assert!(parse(&text).is_err());
    }
}
