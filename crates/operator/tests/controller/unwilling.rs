//! An API server that answers, and does not do what it is asked: too many requests, watches that have expired.

use kube::{Client, Config};
use vmferry_testkit::front::{Action, Front, Reply, Rule};

use crate::support::{NS, Running, cluster, found, migration, retries, until};

/// What a watch says that began too long ago.
const EXPIRED: &str = r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
    "message": "too old resource version: 1 (2)"}"#;
/// How many watches have expired that say it in one way.
const EACH: usize = 2;
const BUSY: &str = r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "TooManyRequests", "code": 429,
    "message": "too many requests, please try again later"}"#;

fn client(front: &Front) -> Client {
    Client::try_from(Config::new(front.url().parse().unwrap())).unwrap()
}

fn json(status: u16, body: &str) -> Reply {
    Reply::status(status)
        .header("content-type", "application/json")
        .body(body)
}

/// How often all migrations were asked for, watches apart.
fn lists(front: &Front) -> usize {
    front.count("GET", "/vmmigrations?") - watches(front)
}

fn watches(front: &Front) -> usize {
    let is_watch = |target: &str| target.contains("/vmmigrations?") && target.contains("watch=true");
    front.seen().iter().filter(|seen| is_watch(&seen.target)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_expired_is_begun_anew_from_all_there_is() {
    let cluster = cluster();
    let front = cluster.front();
    let event = format!(r#"{{"type": "ERROR", "object": {}}}"#, EXPIRED.replace('\n', " "));
    // By an event, as API servers say it, or by the status, as what stands before one may.
    let said = [json(200, &format!("{event}\n")), json(410, EXPIRED)];
    for (at, expired) in said.into_iter().enumerate() {
        let rule = Rule::new(Action::Answer(expired)).path("/vmmigrations?&watch=true");
        front.on(rule.skip(at * EACH).times(EACH));
    }
    let operator = Running::alone(client(&front));
    until("a watch that expired", || watches(&front) >= 1);
    cluster.apply(&migration(NS, "m")).unwrap();
    until("a retry", || retries(&cluster, NS, "m") >= 1);
    until("a watch that goes on", || watches(&front) > 2 * EACH);
    assert_eq!(lists(&front), 1 + 2 * EACH, "each expired watch is followed by a list");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_asked_again_later_and_cost_no_attempt() {
    let cluster = cluster();
    let front = cluster.front();
    let operator = Running::alone(client(&front));
    cluster.apply(&migration(NS, "before")).unwrap();
    until("a retry", || retries(&cluster, NS, "before") >= 1);

    let busy = json(429, BUSY).header("retry-after", "1");
    front.on(Rule::new(Action::Answer(busy)).times(12));
    cluster.apply(&migration(NS, "after")).unwrap();
    let before = retries(&cluster, NS, "before");
    until("a retry after that", || retries(&cluster, NS, "before") > before);
    until("a retry of the new one", || retries(&cluster, NS, "after") >= 1);
    let message = found(&cluster, NS, "after")["status"]["message"].to_string();
    assert!(message.contains("it is away"), "{message}");
    operator.stop().await;
}
