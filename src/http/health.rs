//! `GET /healthz` and `/readyz`, for supervisors and load balancers, and `GET /`, which lists the routes.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::{ApiError, Problem},
};
use crate::types::CheckpointId;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list_routes))
        .routes(routes!(get_health))
        .routes(routes!(get_readiness))
}

/// The process runs.
#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(pattern = "^ok$")]
    status: &'static str,
}

/// The server answers requests.
#[derive(Serialize, ToSchema)]
struct Readiness {
    #[schema(pattern = "^ready$")]
    status: &'static str,
    /// The live checkpoint.
    checkpoint: CheckpointId,
}

/// A list of the routes, as text.
#[utoipa::path(get, path = "/", responses((status = 200, body = String, content_type = "text/plain; charset=utf-8")))]
async fn list_routes() -> &'static str {
    concat!(
        "kith ",
        env!("CARGO_PKG_VERSION"),
        ": image embeddings that keep learning from the pairs you post\n\n",
        "POST /v1/embeddings    an image in, a vector out; try: curl THIS/v1/embeddings -H 'content-type: image/png' --data-binary @a.png\n",
        "POST /v2/embed         the same in Cohere's shape\n",
        "GET  /v1/models        the names that can be asked for; /v1/aliases gives checkpoints names, and tries candidates under them\n",
        "POST /v1/pairs         two images that belong together; try: curl THIS/v1/pairs -F anchor=@a.png -F positive=@b.png\n",
        "     /v1/images        stored images\n",
        "GET  /v1/training      the state of training; PATCH pauses and resumes it; /v1/training/metrics has its series\n",
        "POST /v1/checkpoints   a snapshot; GET lists them; POST /v1/checkpoints/ID/promote serves one\n",
        "GET  /v1/events        what happens, as server-sent events\n",
        "GET  /metrics          figures of this server for Prometheus\n",
        "GET  /docs             the whole interface, to read and to try; /openapi.json is the document\n",
        "GET  /healthz /readyz  for supervisors and load balancers\n",
    )
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// 200 if a checkpoint is loaded, the data folder took a write within the last seconds, and the server is not stopping.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Readiness), (status = 503, description = "not_ready")))]
async fn get_readiness(State(context): State<Context>) -> Result<Json<Readiness>, ApiError> {
    if *context.stopping.borrow() {
        return Err(ApiError::stopping());
    }
    let live = context.app.serving.live();
    let live = live.ok_or_else(ApiError::no_checkpoint)?;
    let writable = context.app.writable.check().await;
    writable.map_err(|cause| ApiError::Unavailable(Problem::new("not_ready", cause)))?;
    Ok(Json(Readiness {
        status: "ready",
        checkpoint: live.id,
    }))
}
