//! What is told.

use vmferry_api::VMMigration;
use vmferry_engine::port::{Event, EventType, Events};
use vmferry_operator::KubeEvents;

use crate::support::{NS, cluster, migration};

const EVENT: (&str, &str) = ("events.k8s.io/v1", "Event");

#[tokio::test(flavor = "multi_thread")]
async fn events_of_all_types_are_told_and_the_same_one_counts() {
    let cluster = cluster();
    let made = cluster.apply(&migration(NS, "m")).unwrap();
    let about: VMMigration = serde_json::from_value(made).unwrap();
    let types = [EventType::Normal, EventType::Warning, EventType::Error];
    // The second one is another process, after a crash.
    for instance in ["first", "second"] {
        let events = KubeEvents::new(cluster.client().await, instance);
        for event_type in types {
            let message = format!("ü{}", "x".repeat(1500));
            let reason = "MigrationFailed".to_owned();
            let event = Event {
                event_type,
                reason,
                message,
            };
            events.publish(&about, event).await;
        }
    }
    let told = cluster.list(EVENT, NS);
    assert_eq!(told.len(), 3, "{told:#?}");
    for expected in ["Normal", "Warning", "Error"] {
        let event = told.iter().find(|event| event["type"] == expected);
        let event = event.unwrap_or_else(|| panic!("no event of type {expected}: {told:#?}"));
        assert_eq!(event["reason"], "MigrationFailed");
        assert_eq!(event["regarding"]["uid"].as_str(), about.metadata.uid.as_deref());
        assert_eq!(event["regarding"]["kind"], "VMMigration");
        let note = event["note"].as_str().unwrap();
        assert!(note.starts_with('ü') && note.len() <= 1024);
        let count = if expected == "Error" {
            &event["deprecatedCount"]
        } else {
            &event["series"]["count"]
        };
        assert_eq!(count, 2, "{event:#}");
    }
}
