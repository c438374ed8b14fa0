//! Where a migration's time goes, for OpenTelemetry: one trace a migration, one span a phase.
//!
//! A phase may take days and outlive any process, so its span is made when it is over, from the times in the status. The ids come
//! from the migration's UID: whoever makes a span a second time makes the same one.
//!
//! Source: the OpenTelemetry protocol over HTTP, <https://opentelemetry.io/docs/specs/otlp/>.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;
use vmferry_api::{Phase, VMMigration, VMMigrationStatus};

use crate::metrics::{changed, phase_name};
use crate::store::Observer;

/// Spans that may wait for the collector. More than that are dropped: nothing waits for whoever watches.
const QUEUE: usize = 1024;
/// Spans that are sent at once, and how long that may take.
const BATCH: usize = 128;
const LIMIT: Duration = Duration::from_secs(10);

/// Tells a collector of phases that ended.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<SpanData>,
}

impl Spans {
    /// Sends to a collector's `/v1/traces`, from a task of its own that ends with the last of these.
    ///
    /// # Errors
    /// Where the endpoint is no URL, in words.
    pub fn to(endpoint: &str) -> Result<Self, String> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(LIMIT)
            .build();
        let mut exporter = exporter.map_err(|error| error.to_string())?;
        exporter.set_resource(&Resource::builder().with_service_name("vmferry").build());
        let (queue, spans) = mpsc::channel(QUEUE);
        tokio::spawn(send(exporter, spans));
        Ok(Self { queue })
    }

    fn tell(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            tracing::warn!("a span is dropped: the collector is too slow");
        }
    }
}

async fn send(exporter: SpanExporter, mut spans: mpsc::Receiver<SpanData>) {
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        let (count, sent) = (batch.len(), exporter.export(std::mem::take(&mut batch)));
        match tokio::time::timeout(LIMIT, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, count, "the collector does not take spans, which are dropped"),
            Err(_) => tracing::warn!(count, "the collector does not answer; its spans are dropped"),
        }
    }
}

impl Observer for Spans {
    fn saved(&self, before: &VMMigration, after: &VMMigration) {
        let (Some(old), Some(new)) = (&before.status, &after.status) else {
            return;
        };
        if old.phase != new.phase
            && let (Some(start), Some(end)) = (changed(old), changed(new))
        {
            let failed = (new.phase == Phase::Failed).then_some(new);
            self.tell(span(after, Some(old.phase), (start, end), failed));
        }
        if old.completion_time.is_none()
            && let (Some(start), Some(end)) = (&new.start_time, &new.completion_time)
        {
            let failed = (new.phase == Phase::Failed).then_some(new);
            self.tell(span(after, None, (start.0, end.0), failed));
        }
    }
}

/// The span of a phase, or of the whole migration.
fn span(
    migration: &VMMigration,
    phase: Option<Phase>,
    (start, end): (Timestamp, Timestamp),
    failed: Option<&VMMigrationStatus>,
) -> SpanData {
    let meta = &migration.metadata;
    let (uid, whole) = (meta.uid.as_deref().unwrap_or_default(), SpanId::from_bytes([0; 8]));
    let root = span_id(uid, "");
    let (name, id, parent) = match phase {
        None => ("VMMigration", root, whole),
        Some(phase) => {
            let name = phase_name(phase);
            (name, span_id(uid, &format!("{name} {start}")), root)
        }
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    SpanData {
        span_context: SpanContext::new(trace_id(uid), id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: SystemTime::from(start),
        end_time: SystemTime::from(end.max(start)),
        attributes: vec![
            KeyValue::new("k8s.namespace.name", text(&meta.namespace)),
            KeyValue::new("vmferry.migration.name", text(&meta.name)),
            KeyValue::new("vmferry.migration.uid", uid.to_owned()),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match failed {
            None => Status::Ok,
            Some(status) => Status::error(text(&status.message)),
        },
        instrumentation_scope: InstrumentationScope::builder("vmferry").build(),
    }
}

/// A UID is a UUID, which has as many bits as a trace's id.
fn trace_id(uid: &str) -> TraceId {
    let hex: String = uid.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    let id = u128::from_str_radix(&hex, 16).unwrap_or_default();
    TraceId::from(if id == 0 { u128::MAX } else { id })
}

/// FNV-1a, 64 bits: the same in every process and version.
fn span_id(uid: &str, what: &str) -> SpanId {
    let bytes = uid.bytes().chain([0]).chain(what.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SpanId::from(hash.max(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(phase: &str, at: &str, completed: bool) -> VMMigration {
        let mut status = json!({
            "phase": phase, "startTime": "2026-01-01T00:00:00Z", "message": "why",
            "conditions": [{"type": "Exported", "status": "True", "reason": "R", "message": "", "lastTransitionTime": at}],
        });
        if completed {
            status["completionTime"] = json!(at);
        }
        serde_json::from_value(json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VMMigration",
            "metadata": {"name": "m", "namespace": "n", "uid": "0f4b5c6d-7e8f-4a0b-9c1d-2e3f40516273"},
            "spec": {
                "sourceName": "a", "sourceNamespace": "n", "targetProviderRef": {"name": "p"}, "targetName": "b",
                "storage": {"type": "nfs", "path": "/m"}
            },
            "status": status
        }))
        .unwrap()
    }

    /// What comes over the wire is the protocol's: names are plain text in it.
    #[tokio::test]
    async fn a_collector_gets_spans_at_its_usual_place() {
        let (heard, mut hear) = mpsc::channel(8);
        let take = move |uri: axum::http::Uri, body: axum::body::Bytes| async move {
            let _ = heard.send((uri.path().to_owned(), body)).await;
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(take)).await });
        let spans = Spans::to(&endpoint).unwrap();
        let exporting = migration("Exporting", "2026-01-01T00:00:10Z", false);
        spans.saved(&exporting, &migration("Transferring", "2026-01-01T00:00:40Z", false));
        let heard = tokio::time::timeout(LIMIT, hear.recv()).await.unwrap();
        let (path, body) = heard.unwrap();
        assert_eq!(path, "/v1/traces");
        for text in ["vmferry", "Exporting", "vmferry.migration.uid"] {
            let found = body.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(found, "{text} is not in {body:?}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        assert!(Spans::to("not a url").is_err());
    }

    #[test]
    fn a_phase_is_a_span_of_the_migrations_trace() {
        let (queue, mut spans) = mpsc::channel(8);
        let watch = Spans { queue };
        let exporting = migration("Exporting", "2026-01-01T00:00:10Z", false);
        let transferring = migration("Transferring", "2026-01-01T00:00:40Z", false);
        let failed = migration("Failed", "2026-01-01T00:01:00Z", true);
        watch.saved(&exporting, &exporting);
        watch.saved(&exporting, &transferring);
        watch.saved(&exporting, &transferring);
        watch.saved(&transferring, &failed);
        drop(watch);
        let mut all = Vec::new();
        while let Ok(span) = spans.try_recv() {
            all.push(span);
        }
        let names: Vec<_> = all.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["Exporting", "Exporting", "Transferring", "VMMigration"]);
        assert_eq!(all[0].span_context, all[1].span_context, "made twice, it is the same");
        assert_ne!(all[0].span_context.span_id(), all[2].span_context.span_id());
        let took = all[0].end_time.duration_since(all[0].start_time).unwrap();
        assert_eq!(took, Duration::from_secs(30));
        let root = &all[3];
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert!(
            all[..3]
                .iter()
                .all(|span| span.parent_span_id == root.span_context.span_id())
        );
        assert_eq!(
            root.span_context.trace_id().to_string(),
            "0f4b5c6d7e8f4a0b9c1d2e3f40516273"
        );
        assert_eq!((&all[0].status, &root.status), (&Status::Ok, &Status::error("why")));
    }
}
