//! `GET /healthz` and `/readyz`, for supervisors and load balancers.

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
