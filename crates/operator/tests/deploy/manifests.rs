//! The manifests and the examples, as an API server takes them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use vmferry_api::Key;
use vmferry_api::manifest::{Manifests, Source};

use crate::support::{api, cluster, documents, namespace, project};

/// What an API server of 1.20 does not know, and what is not Kubernetes' own: everything else it has to take.
const UNKNOWN: [&str; 5] = [
    "policy/v1 PodDisruptionBudget",
    "monitoring.coreos.com/v1 ServiceMonitor",
    "monitoring.coreos.com/v1 PrometheusRule",
    "cert-manager.io/v1 Issuer",
    "cert-manager.io/v1 Certificate",
];

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no manifests in {folder}");
    files
}

fn type_of(object: &Value) -> String {
    format!(
        "{} {}",
        object["apiVersion"].as_str().unwrap(),
        object["kind"].as_str().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_manifest() {
    let cluster = cluster();
    let admin = cluster.client().await;
    for name in ["vmferry-system", "vms", "infra"] {
        namespace(&admin, name).await;
    }
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::apply("test").force()
    };
    let mut taken = 0;
    for file in yaml_files("deploy/manifests") {
        for object in documents(&file) {
            let (kind, name) = (
                type_of(&object),
                object["metadata"]["name"].as_str().unwrap().to_owned(),
            );
            match api(&admin, &object).patch(&name, &dry, &Patch::Apply(&object)).await {
                Ok(_) => {
                    assert!(
                        !UNKNOWN.contains(&kind.as_str()),
                        "{kind} is known: take it off the list"
                    );
                    taken += 1;
                }
                Err(kube::Error::Api(status)) if status.code == 404 && UNKNOWN.contains(&kind.as_str()) => {}
                Err(error) => panic!("{}: {kind} {name}: {error}", file.display()),
            }
        }
    }
    assert!(taken > 40, "only {taken} objects were looked at");
}

/// The rules that the CRDs state in CEL, which a server of 1.20 passes over.
#[test]
fn the_examples_keep_the_rules() {
    let ours = |it: &Value| it["kind"] == "Secret" || it["apiVersion"] == "infra.virtrigaud.io/v1beta1";
    let objects = yaml_files("examples/kubernetes")
        .into_iter()
        .flat_map(|file| documents(&file))
        .filter(ours);
    let sources: Vec<_> = objects
        .map(|it| Source {
            name: type_of(&it),
            text: it.to_string(),
        })
        .collect();
    let found = Manifests::parse(&sources).unwrap_or_else(|errors| panic!("{errors:?}"));
    let types: BTreeSet<_> = found
        .migrations
        .values()
        .map(|it| it.object.spec.storage.storage_type as u8)
        .collect();
    assert_eq!(types.len(), 3, "an example for each kind of storage");
    for migration in found.migrations.values() {
        let spec = &migration.object.spec;
        assert!(
            found.virtual_machines.contains_key(&Key::new("vms", &spec.source_name)),
            "{spec:?}"
        );
        assert!(
            found
                .providers
                .contains_key(&Key::new("vms", &spec.target_provider_ref.name)),
            "{spec:?}"
        );
        let secret = spec
            .storage
            .credentials_secret_ref
            .as_ref()
            .and_then(|it| it.name.as_deref());
        assert!(
            secret.is_none_or(|name| found.secrets.contains_key(&Key::new("vms", name))),
            "{spec:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_can_be_created_in_their_order() {
    let cluster = cluster();
    let admin = cluster.client().await;
    for file in yaml_files("examples/kubernetes") {
        for object in documents(&file) {
            let params = PostParams::default();
            let made = api(&admin, &object)
                .create(&params, &serde_json::from_value(object.clone()).unwrap())
                .await;
            let made = made.unwrap_or_else(|error| panic!("{}: {}: {error}", file.display(), type_of(&object)));
            // What this server does not know of a resource it drops without a word.
            let kept = serde_json::to_value(&made).unwrap();
            assert_contains(
                &kept["spec"],
                &object["spec"],
                &format!("{}: {}", file.display(), type_of(&object)),
            );
        }
    }
}

/// Everything that was said is there; there may be more.
fn assert_contains(found: &Value, said: &Value, what: &str) {
    match said {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                assert_contains(&found[name], value, &format!("{what}.{name}"));
            }
        }
        said => assert_eq!(found, said, "{what}"),
    }
}
