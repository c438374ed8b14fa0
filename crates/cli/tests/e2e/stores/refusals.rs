//! Storage that cannot be used: said by name, with what to do, and nothing is left.

use serde_json::{Value, json};
use vmferry_testkit::{GuestSpec, World};

use crate::support::{Crossing, Lab, Place};

/// A crossing that must not begin.
struct Attempt {
    lab: Lab,
    before: World,
}

impl Attempt {
    fn new() -> Self {
        let lab = Lab::session();
        lab.a.define(&GuestSpec::small("traveller"));
        let before = lab.look();
        Self { lab, before }
    }

    fn crossing(&self) -> Crossing {
        self.lab.crossing("traveller")
    }

    /// It fails while it is validated, says these words, and leaves nothing.
    #[track_caller]
    fn fails(&self, name: &str, mut crossing: Crossing, more: &[&str], words: &[&str]) {
        name.clone_into(&mut crossing.name);
        let outcome = self.lab.ferry.start_with(&crossing, more).end();
        outcome.refused(1, words);
        let record = self.lab.ferry.record(name);
        assert_eq!(record.phase(), "Failed");
        assert!(!record.holds("Validated"), "{:?}", record.condition("Validated"));
        self.lab.assert_nothing_left(&self.before);
        let validated = self
            .lab
            .ferry
            .command(&["validate", "--connect", "-f", &self.manifests(&crossing)]);
        if more.is_empty() {
            validated.refused(1, words);
        }
    }

    fn manifests(&self, crossing: &Crossing) -> String {
        let path = self.lab.ferry.write("again.yaml", &crossing.to_yaml());
        path.display().to_string()
    }
}

fn with_storage(crossing: Crossing, storage: Value, secret: Value) -> Crossing {
    let mut crossing = crossing.set("storage", storage);
    crossing.spec["storage"]["credentialsSecretRef"] = json!({ "name": "staging" });
    crossing.secrets.push(("staging".to_owned(), secret));
    crossing
}

#[test]
fn hosts_that_are_not_allowed() {
    let (attempt, place) = (Attempt::new(), Place::nfs4());
    attempt.fails(
        "not-listed",
        attempt.crossing().by(&place),
        &["--allowed-storage-hosts", "10.0.0.0/8,*.example.com"],
        &["127.0.0.1", "not one of the allowed storage hosts"],
    );
    let metadata = json!({ "type": "nfs", "endpoint": "169.254.169.254", "path": "/export" });
    attempt.fails(
        "metadata",
        with_storage(attempt.crossing(), metadata, json!({})),
        &[],
        &["169.254.169.254", "never used for storage"],
    );
    assert_eq!(place.everything(), Vec::<String>::new());
    let allowed = attempt.crossing().by(&place);
    let ran = attempt
        .lab
        .ferry
        .start_with(&allowed, &["--allowed-storage-hosts", "127.0.0.0/8"]);
    ran.end().ready();
}

/// Keys of the Secret become others, and nobody is let in.
#[track_caller]
fn lets_nobody_in(place: &Place, wrong: &Value, words: &[&str]) {
    let attempt = Attempt::new();
    let crossing = with_storage(attempt.crossing(), place.storage(), wrong.clone());
    attempt.fails("wrong", crossing, &[], words);
    assert_eq!(place.everything(), Vec::<String>::new());
    let condition = attempt.lab.ferry.record("wrong").condition("Validated").unwrap();
    assert_eq!(condition["reason"], "AuthenticationFailed", "{condition}");
}

#[test]
fn a_wrong_key_for_s3() {
    let place = Place::s3();
    let mut wrong = place.secret();
    wrong["secretKey"] = json!("wr0ng");
    lets_nobody_in(&place, &wrong, &["vm-migrations", "127.0.0.1"]);
}

#[test]
fn a_wrong_password_for_http() {
    let wrong = json!({ "username": "ferry", "password": "wr0ng" });
    lets_nobody_in(&Place::nginx(), &wrong, &["401", "Secret"]);
}

#[test]
fn an_export_that_cannot_be_written() {
    let place = Place::read_only();
    lets_nobody_in(&place, &place.secret(), &["read-only"]);
}

#[test]
fn values_of_the_secret_that_make_no_sense() {
    let attempt = Attempt::new();
    let nfs = json!({ "type": "nfs", "endpoint": "127.0.0.1", "path": "/export" });
    let s3 = json!({ "type": "s3", "bucket": "vms", "region": "us-east-1", "endpoint": "http://127.0.0.1:9" });
    attempt.fails(
        "no-secret-key",
        with_storage(attempt.crossing(), s3, json!({ "accessKey": "AK" })),
        &[],
        &["secretKey", "S3 bucket vms"],
    );
    let http = json!({ "type": "http", "endpoint": "http://127.0.0.1:9/x" });
    attempt.fails(
        "no-password",
        with_storage(attempt.crossing(), http, json!({ "username": "u" })),
        &[],
        &["username", "password"],
    );
    attempt.fails(
        "mount-options",
        with_storage(attempt.crossing(), nfs, json!({ "mountOptions": "vers=5" })),
        &[],
        &["mountOptions of Secret default/staging", "vers=5"],
    );
}
