//! Two operators at once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use vmferry_operator::Error;
use vmferry_testkit::kube::Cluster;

use crate::support::{NS, Running, cluster, migration, retries, until};

const LEASE: (&str, &str) = ("coordination.k8s.io/v1", "Lease");

fn holder(cluster: &Cluster) -> String {
    let lease = cluster.get(LEASE, NS, "vmferry").unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Who told anything.
fn tellers(cluster: &Cluster) -> BTreeSet<String> {
    let events = cluster.list(("events.k8s.io/v1", "Event"), NS);
    let instance = |event: &serde_json::Value| event["reportingInstance"].as_str().unwrap().to_owned();
    events.iter().map(instance).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_takes_over_within_fifteen_seconds_of_a_kill() {
    let cluster = cluster();
    let first = Running::elected(cluster.client().await, "first");
    until("a leader", || holder(&cluster) == "first");
    let second = Running::elected(cluster.client().await, "second");
    cluster.apply(&migration(NS, "m")).unwrap();
    until("the first retry", || retries(&cluster, NS, "m") >= 1);
    assert_eq!(
        tellers(&cluster),
        ["first".to_owned()].into(),
        "only the leader does anything"
    );

    first.kill();
    let took = until("the takeover", || holder(&cluster) == "second");
    assert!(took < Duration::from_secs(15), "the takeover took {took:?}");
    assert!(
        took > Duration::from_secs(5),
        "nobody takes a lease that may still be used: {took:?}"
    );
    let before = retries(&cluster, NS, "m");
    until("a retry by the second", || retries(&cluster, NS, "m") > before);

    let third = Running::elected(cluster.client().await, "third");
    second.stop().await;
    let took = until("the handover", || holder(&cluster) == "third");
    assert!(
        took < Duration::from_secs(5),
        "a lease that was given up is taken at once, not after {took:?}"
    );
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_is_taken_ends() {
    let cluster = cluster();
    let robbed = Running::elected(cluster.client().await, "robbed");
    until("a leader", || holder(&cluster) == "robbed");
    let lease = json!({
        "apiVersion": LEASE.0, "kind": LEASE.1, "metadata": {"name": "vmferry", "namespace": NS},
        "spec": {"holderIdentity": "thief"}
    });
    cluster.apply(&lease).unwrap();
    let ended = robbed.ended().await.unwrap_err();
    assert!(
        matches!(&ended, Error::LeaseLost(why) if why.contains("thief")),
        "{ended}"
    );
}
