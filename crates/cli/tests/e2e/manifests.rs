//! Manifests that `vmferry run` does not even start with.

use serde_json::json;
use vmferry_testkit::GuestSpec;

use crate::support::{Crossing, Lab};

/// Runs a crossing that must not even start.
#[track_caller]
fn is_bad_input(lab: &Lab, crossing: &Crossing, texts: &[&str]) {
    let before = lab.look();
    lab.ferry.run(crossing).refused(2, texts);
    lab.assert_nothing_left(&before);
}

#[test]
fn what_a_manifest_names_must_be_there() {
    let lab = Lab::session();
    lab.board(&GuestSpec::small("traveller"));

    let mut without_vm = lab.crossing("traveller");
    without_vm.vm = None;
    is_bad_input(&lab, &without_vm, &["default/traveller", "sourceName"]);

    let mut without_provider = lab.crossing("traveller");
    without_provider.providers.retain(|(name, _)| name != "b");
    is_bad_input(&lab, &without_provider, &["default/b", "targetProviderRef"]);

    let mut without_secret = lab.crossing("traveller").secret("b", json!({ "password": "p" }));
    without_secret.secrets.clear();
    is_bad_input(&lab, &without_secret, &["default/b-access", "credentialSecretRef"]);

    let without_path = lab.crossing("traveller").set("storage", json!({ "type": "nfs" }));
    is_bad_input(&lab, &without_path, &["path"]);

    let outcome = lab.ferry.start_files(&[&lab.ferry.write("bad.yaml", "kind: [")]).end();
    outcome.refused(2, &["bad.yaml"]);
}
