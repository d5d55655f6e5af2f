//! `GET /metrics`: the series of this server as Prometheus' text.

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};

use super::context::Context;

/// The version of the text that Prometheus and its relatives read.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router() -> Router<Context> {
    Router::new().route("/metrics", get(get_metrics))
}

async fn get_metrics(State(context): State<Context>) -> Response {
    context
        .gauges
        .refresh(&context.app, context.budget.held())
        .await;
    ([(CONTENT_TYPE, MEDIA)], context.app.metrics.render()).into_response()
}
