//! What the manifests install is what runs: the Deployment's arguments start the controller, the rights are enough for a migration
//! and hold nothing that nobody uses, and alerts and graphs ask for metrics that there are.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is how to fail")]

mod audit;
mod bed;
#[path = "../e2e/support/process.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod process;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::audit::Right;
use crate::bed::{Bed, documents};

/// Rights that only trouble needs, which does not come in this test.
const FOR_TROUBLE: [(&str, &str, &str); 6] = [
    // A worker went without a word, and its pod is asked why.
    ("pods", "list", "controller"),
    // Another replica made the Job at the same moment.
    ("jobs.batch", "get", "controller"),
    // The migration changed between two writes, and is read again.
    ("vmmigrations.infra.virtrigaud.io", "get", "controller"),
    // The same event once more is counted up.
    ("events.events.k8s.io", "patch", "controller"),
    ("events", "patch", "controller"),
    // A Secret of the job was not there when its pod began.
    ("secrets", "get", "worker"),
];

#[test]
fn what_is_installed_is_what_migrations_need_and_no_more() {
    let mut bed = Bed::new();
    bed.vm("one");
    bed.vm("two");
    bed.declare("arrives", "one", &json!({}));
    bed.declare("fails", "nobody", &json!({}));
    bed.await_phase("arrives", "Ready");
    bed.await_phase("fails", "Failed");
    // One that ends in the middle: its worker is stopped, and what it had is removed.
    bed.declare(
        "slow",
        "two",
        &json!({ "migration.virtrigaud.io/bandwidth-limit": "256KiB" }),
    );
    bed.await_bytes("slow");
    bed.delete("slow");

    bed.assert_metrics_are_served();
    bed.stop();
    bed.assert_rights_are_used();
    assert_eq!(bed.audit().refused(), Vec::<String>::new());
}

impl Bed {
    /// Every right that a Role gives was used, and everything that was used is given, by a Role and not by chance.
    fn assert_rights_are_used(&self) {
        let audit = self.audit();
        for (role, who) in [
            ("controller", "vmferry-system:vmferry-controller"),
            ("worker", "vms:vmferry-worker"),
        ] {
            let used = audit.used(&format!("system:serviceaccount:{who}"));
            assert!(used.len() >= 3, "{who} did nothing: {used:?}");
            let excused = |right: &Right| FOR_TROUBLE.contains(&(right.resource.as_str(), right.verb.as_str(), role));
            let idle: Vec<_> = given(&format!("vmferry-{role}"))
                .into_iter()
                .filter(|it| !used.contains(it) && !excused(it))
                .collect();
            assert_eq!(idle, [], "rights of {role} that nobody uses; used are {used:#?}");
        }
    }

    /// Every metric that an alert or a graph asks for is there.
    fn assert_metrics_are_served(&self) {
        let served = self.metrics();
        let asked = asked();
        assert!(asked.len() > 10, "{asked:?}");
        for name in asked {
            let line = |line: &str| {
                line.strip_prefix(&name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            };
            assert!(served.lines().any(line), "nothing is called {name} in\n{served}");
        }
    }
}

/// The rights of the roles whose name begins so.
fn given(prefix: &str) -> BTreeSet<Right> {
    let roles = documents("deploy/manifests/install.yaml").into_iter().filter(|it| {
        matches!(it["kind"].as_str(), Some("Role" | "ClusterRole"))
            && it["metadata"]["name"].as_str().unwrap().starts_with(prefix)
    });
    let rules: Vec<_> = roles
        .flat_map(|role| role["rules"].as_array().unwrap().clone())
        .collect();
    let texts = |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut rights = BTreeSet::new();
    for rule in &rules {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    rights.insert(Right::new(&group, &resource, &verb));
                }
            }
        }
    }
    assert!(!rights.is_empty(), "no role {prefix}");
    rights
}

/// The metrics that alerts and graphs ask for.
fn asked() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for object in documents("deploy/manifests/monitoring.yaml") {
        match object["kind"].as_str().unwrap() {
            "PrometheusRule" => texts.push(object["spec"].clone()),
            "ConfigMap" => texts.push(serde_json::from_str(object["data"]["vmferry.json"].as_str().unwrap()).unwrap()),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    for text in &texts {
        expressions(text, &mut names);
    }
    names
}

fn expressions(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(expression) = fields.get("expr").and_then(Value::as_str) {
                let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                names.extend(words.filter(|word| word.starts_with("vmferry_")).map(str::to_owned));
            }
            fields.values().for_each(|field| expressions(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, names)),
        _ => {}
    }
}
