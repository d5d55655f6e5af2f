//! `GET /healthz`, `/readyz`, `/`: for supervisors, balancers and the curious.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{
    context::Context,
    error::{ApiError, Problem},
    mapping::stopping,
};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/", get(welcome))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

async fn welcome() -> &'static str {
    concat!(
        "kith ",
        env!("CARGO_PKG_VERSION"),
        ": image embeddings that keep learning from the pairs you post\n\n",
        "POST /v1/embeddings    an image in, a vector out; try: curl THIS/v1/embeddings -H 'content-type: image/png' --data-binary @a.png\n",
        "GET  /v1/models        the names that can be asked for\n",
        "POST /v1/pairs         two images that belong together; try: curl THIS/v1/pairs -F anchor=@a.png -F positive=@b.png\n",
        "     /v1/images        stored images\n",
        "GET  /v1/training      what training is doing; PATCH pauses and resumes it; /v1/training/metrics is its series\n",
        "POST /v1/checkpoints   a snapshot; GET lists them; POST /v1/checkpoints/ID/promote serves one\n",
        "GET  /healthz /readyz  for supervisors and balancers\n",
    )
}

/// The process is alive.
async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// A checkpoint is loaded, the data folder took a write within the last seconds, nothing is stopping.
async fn readyz(State(context): State<Context>) -> Result<Json<Value>, ApiError> {
    if *context.stopping.borrow() {
        return Err(stopping());
    }
    let not_ready = |what: &str| ApiError::Unavailable(Problem::new("not_ready", what));
    let live = context.app.serving.live();
    let live = live.ok_or_else(|| not_ready("no checkpoint is loaded yet"))?;
    let writable = context.app.writable.check().await;
    writable.map_err(|why| not_ready(&why))?;
    Ok(Json(json!({"status": "ready", "checkpoint": live.id})))
}
