//! Another try, and giving up: asked for by the plugin, done by the controller.

use std::time::Duration;

use super::cluster::{declare, kubectl};
use super::support::{Lab, Record};

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_cancelled_migration_is_undone_and_starts_again_when_it_is_asked_to() {
    let lab = Lab::session();
    let source = lab.board(&super::telling::guest());
    let before = lab.look();
    let crossing = lab.crossing("traveller").limit("1MiB");
    let mut run = lab.ferry.start(&crossing);
    run.await_record("m", "on its way", LIMIT, |record| record.phase() == "Transferring");
    kubectl(&lab, &["cancel", "m"]);
    let record = run.await_record("m", "undone", LIMIT, Record::is_over);
    assert_eq!(record.phase(), "Failed");
    let failed = record.condition("Failed").unwrap();
    assert_eq!(
        (failed["status"].as_str(), failed["reason"].as_str()),
        (Some("True"), Some("Cancelled"))
    );
    lab.assert_nothing_left(&before);
    // The limit of the next round is another.
    declare(&lab, &crossing.limit("1GiB")).unwrap();
    kubectl(&lab, &["retry", "m"]);
    run.await_record("m", "started again", LIMIT, |record| !record.is_over());
    run.end().ready();
    let record = lab.ferry.record("m");
    assert!(
        record.status("exportTaskRef").ends_with("-1"),
        "no job has the name of an earlier one"
    );
    lab.assert_only_arrived(&before).assert_booted(&source);
}

#[test]
fn a_retry_that_waits_is_due_when_it_is_asked_for() {
    let lab = Lab::session();
    let crossing = lab.crossing("traveller");
    let policy = serde_json::json!({ "maxAttempts": 3, "backoffDuration": "1h", "maxBackoffDuration": "1h" });
    let socket = lab.a.uri();
    let crossing = crossing
        .set("retryPolicy", policy)
        .endpoint("a", "qemu+unix:///session?socket=/nonexistent");
    let source = lab.board(&super::telling::guest());
    let mut run = lab.ferry.start(&crossing);
    let record = run.await_record("m", "waiting", LIMIT, |record| {
        !record.status("nextRetryTime").is_empty()
    });
    assert!(
        record.status("message").contains("retry scheduled in 1h"),
        "{}",
        record.status("message")
    );
    declare(&lab, &crossing.endpoint("a", &socket)).unwrap();
    kubectl(&lab, &["retry", "m"]);
    run.end().ready();
    drop(source);
}
