//! What the kubelet and Prometheus ask of the controller.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};

use super::Context;

/// `/livez` answers as long as the process does, whatever becomes of its peers. `/readyz` waits for the watches. `/metrics` is for
/// Prometheus.
pub fn router(ctx: Arc<Context>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ctx)
}

async fn readyz(State(ctx): State<Arc<Context>>) -> (StatusCode, &'static str) {
    if ctx.apps.is_synced() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the watches were not read through yet: is the CRD installed, may they be read?")
    }
}

async fn metrics(State(ctx): State<Arc<Context>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    ctx.metrics
        .encode(&ctx.apps.counts(), ctx.leadership.holds())
        .map(|text| (kind, text))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
