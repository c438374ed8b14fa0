//! `kubectl vmferry describe`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use vmferry_api::Time;

use super::client::{Cluster, call};
use crate::commands::describe::{Happened, show};
use crate::exit::{Code, Failure};

/// No more events are shown than these.
const MOST: u32 = 500;

/// Shows everything about a migration.
pub async fn describe(cluster: &Cluster, name: &str) -> Result<Code, Failure> {
    let migration = cluster.migration(name).await?;
    let uid = migration.metadata.uid.clone().unwrap_or_default();
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={uid}"))
        .limit(MOST);
    let events = call(
        "list the events of",
        &cluster.object(name),
        cluster.events().list(&params),
    )
    .await?;
    let mut events: Vec<Happened> = events.items.into_iter().map(happened).collect();
    events.sort_by(|a, b| a.time.cmp(&b.time));
    show(&migration, None, &events);
    Ok(Code::Success)
}

/// Of one that was told several times, the last time counts.
fn happened(event: Event) -> Happened {
    let series = event.series.and_then(|series| series.last_observed_time);
    let precise = series.or(event.event_time).map(|time| Time(time.0));
    let created = event.metadata.creation_timestamp;
    Happened {
        time: event
            .last_timestamp
            .or(precise)
            .or(created)
            .unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
    }
}
