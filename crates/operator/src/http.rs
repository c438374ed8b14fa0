//! What is served over HTTP: `/metrics` at one address, `/healthz` and `/readyz` at another.
//!
//! A process is alive while it takes part in the election, and ready when it knows all objects, whether it leads or not: a
//! replica that waits is as it should be.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::error::Error;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who answers.
pub(crate) trait Answers: Send + Sync + 'static {
    /// All metrics.
    fn metrics(&self) -> String;
    /// What is wrong, if this process is to be started anew.
    fn ill(&self) -> Option<&'static str>;
    /// What is missing, if this process is not ready.
    fn unready(&self) -> Option<&'static str>;
}

/// Listens, so that an address that is taken is known before anything else begins.
pub(crate) async fn listen(what: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    listener
        .map(Some)
        .map_err(|source| Error::Listen { what, address, source })
}

/// Serves metrics. Never ends.
pub(crate) async fn serve_metrics<A: Answers>(listener: Option<TcpListener>, answers: Arc<A>) {
    let metrics = async |State(answers): State<Arc<A>>| ([(header::CONTENT_TYPE, OPEN_METRICS)], answers.metrics());
    serve(
        listener,
        Router::new().route("/metrics", get(metrics)).with_state(answers),
    )
    .await;
}

/// Serves health. Never ends.
pub(crate) async fn serve_health<A: Answers>(listener: Option<TcpListener>, answers: Arc<A>) {
    let health = async |State(answers): State<Arc<A>>| said(answers.ill());
    let ready = async |State(answers): State<Arc<A>>| said(answers.unready());
    let routes = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready));
    serve(listener, routes.with_state(answers)).await;
}

fn said(wrong: Option<&'static str>) -> impl IntoResponse {
    match wrong {
        None => (StatusCode::OK, "ok"),
        Some(wrong) => (StatusCode::SERVICE_UNAVAILABLE, wrong),
    }
}

async fn serve(listener: Option<TcpListener>, routes: Router) {
    if let Some(listener) = listener
        && let Err(error) = axum::serve(listener, routes).await
    {
        tracing::error!(%error, "an address is not served any more");
    }
    std::future::pending::<()>().await;
}
