//! `GET /healthz` and `/readyz`, for supervisors and load balancers, and `GET /`, which lists the routes.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{
    context::Context,
    error::{ApiError, Problem},
};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/", get(list_routes))
        .route("/healthz", get(get_health))
        .route("/readyz", get(get_readiness))
}

async fn list_routes() -> &'static str {
    concat!(
        "kith ",
        env!("CARGO_PKG_VERSION"),
        ": image embeddings that keep learning from the pairs you post\n\n",
        "POST /v1/embeddings    an image in, a vector out; try: curl THIS/v1/embeddings -H 'content-type: image/png' --data-binary @a.png\n",
        "GET  /v1/models        the names that can be asked for\n",
        "POST /v1/pairs         two images that belong together; try: curl THIS/v1/pairs -F anchor=@a.png -F positive=@b.png\n",
        "     /v1/images        stored images\n",
        "GET  /v1/training      the state of training; PATCH pauses and resumes it; /v1/training/metrics has its series\n",
        "POST /v1/checkpoints   a snapshot; GET lists them; POST /v1/checkpoints/ID/promote serves one\n",
        "GET  /metrics         figures of this server for Prometheus\n",
        "GET  /healthz /readyz  for supervisors and load balancers\n",
    )
}

/// The process is alive.
async fn get_health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// 200 if a checkpoint is loaded, the data folder took a write within the last seconds, and the server is not stopping.
async fn get_readiness(State(context): State<Context>) -> Result<Json<Value>, ApiError> {
    if *context.stopping.borrow() {
        return Err(ApiError::stopping());
    }
    let live = context.app.serving.live();
    let live = live.ok_or_else(ApiError::no_checkpoint)?;
    let writable = context.app.writable.check().await;
    writable.map_err(|cause| ApiError::Unavailable(Problem::new("not_ready", cause)))?;
    Ok(Json(json!({"status": "ready", "checkpoint": live.id})))
}
