//! `GET /metrics`: the series of this server as Prometheus' text.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::context::Context;

/// The version of the text that Prometheus and its relatives read.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(get_metrics))
}

/// The series of this server, for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = MEDIA)))]
async fn get_metrics(State(context): State<Context>) -> Response {
    context
        .gauges
        .refresh(&context.app, context.budget.held())
        .await;
    ([(CONTENT_TYPE, MEDIA)], context.app.metrics.render()).into_response()
}
