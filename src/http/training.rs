//! `/v1/training`: the trainer's state, pausing and resuming it, and the series of its metrics.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, schema::Type};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Params, whole_parameter},
    json::{optional_name, parse},
    to_the_end::to_the_end,
};
use crate::{
    app::App,
    db::{CheckpointRole, CheckpointStatus, DecidedBy, StepMetrics},
    train::TrainingStatus,
    types::CheckpointId,
};
use kith_eval::Evaluation;

/// Most rows of the series in one answer; a longer series is thinned.
const MAX_ROWS: u32 = 2000;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(get_training, update_training))
        .routes(routes!(get_training_metrics))
}

#[derive(Serialize, utoipa::ToSchema)]
struct TrainingResponse {
    #[serde(flatten)]
    training: TrainingStatus,
    checkpoint: CheckpointSummary,
}

#[derive(Serialize, utoipa::ToSchema)]
struct CheckpointSummary {
    /// The live checkpoint.
    live: Option<CheckpointId>,
    /// The newest complete checkpoint.
    latest: Option<CheckpointId>,
    /// Whether a caller's promotion holds: the gate promotes another only after `POST /v1/checkpoints/auto`.
    held: bool,
    /// Who promoted the live checkpoint.
    decided_by: Option<DecidedBy>,
    /// Why it was promoted.
    reason: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TrainingUpdate)]
struct UpdateRequest {
    #[serde(default, deserialize_with = "optional_name")]
    state: Option<RequestedState>,
    /// The base rate from now on, beyond restarts; `schedule`: that of the settings again.
    #[schema(schema_with = rate_schema)]
    learning_rate: Option<RequestedRate>,
}

/// A rate, or whose it shall be.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "it must be a number or \"schedule\"")]
enum RequestedRate {
    Rate(f32),
    Of(RateOf),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RateOf {
    Schedule,
}

/// The smallest rate is what rounds to an `f32` above 0.
fn rate_schema() -> RefOr<Schema> {
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .exclusive_minimum(Some(7.006_492_321_624_085e-46))
        .maximum(Some(f64::from(f32::MAX)));
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["schedule"]));
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new()
        .item(number)
        .item(name)
        .item(null)
        .into()
}

#[derive(Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum RequestedState {
    Paused,
    Running,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsParams {
    #[serde(default, deserialize_with = "whole_parameter")]
    since: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
struct MetricsResponse {
    data: Vec<StepMetrics>,
    evaluations: Vec<EvaluationRow>,
}

/// A checkpoint's evaluation on held-out pairs.
#[derive(Serialize, utoipa::ToSchema)]
struct EvaluationRow {
    checkpoint: CheckpointId,
    step: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Evaluation)]
    evaluation: Value,
}

/// The state of training.
#[utoipa::path(get, path = "/v1/training", responses((status = 200, body = TrainingResponse)))]
async fn get_training(State(app): State<App>) -> Result<Json<TrainingResponse>, ApiError> {
    let rows = app.db.checkpoints().await?;
    let latest = rows
        .iter()
        .find(|row| row.status == CheckpointStatus::Complete);
    let latest = latest.map(|row| row.id);
    let live = rows.iter().find(|row| row.role == CheckpointRole::Live);
    Ok(Json(TrainingResponse {
        training: app.trainer.status(),
        checkpoint: CheckpointSummary {
            live: app.serving.live().map(|live| live.id),
            latest,
            held: live.is_some_and(|row| row.held),
            decided_by: live.and_then(|row| row.decided_by),
            reason: live.and_then(|row| row.reason.clone()),
        },
    }))
}

/// Pauses or resumes training, or sets its learning rate.
///
/// Changes nothing unless every field is valid. Needs at least one field.
#[utoipa::path(patch, path = "/v1/training", request_body = UpdateRequest, responses((status = 200, body = TrainingResponse), (status = 400, description = "invalid_value"), (status = 409, description = "training_disabled"), (status = 503, description = "training_failed"), (status = 507, description = "storage_full")))]
async fn update_training(
    State(app): State<App>,
    Body(body): Body,
) -> Result<Json<TrainingResponse>, ApiError> {
    let update: UpdateRequest = parse(body, Ok).await?;
    to_the_end(apply(app, update)).await
}

async fn apply(app: App, update: UpdateRequest) -> Result<Json<TrainingResponse>, ApiError> {
    if update.state.is_none() && update.learning_rate.is_none() {
        let message = "nothing to change: send \"state\" (paused or running) or \"learning_rate\"";
        return Err(ApiError::BadRequest(Problem::new("missing_field", message)));
    }
    if let Some(rate) = update.learning_rate {
        let rate = match rate {
            RequestedRate::Rate(rate) => Some(rate),
            RequestedRate::Of(RateOf::Schedule) => None,
        };
        if rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(ApiError::invalid(
                "invalid_value",
                "learning_rate",
                "learning_rate must be above 0, or \"schedule\"",
            ));
        }
        let set = app.trainer.set_learning_rate(rate).await;
        set.map_err(|error| ApiError::from(error).with_param("learning_rate"))?;
    }
    if let Some(state) = update.state {
        let paused = matches!(state, RequestedState::Paused);
        app.trainer.set_paused(paused).await?;
    }
    get_training(State(app)).await
}

/// The series of training, thinned evenly above 2,000 rows, and the evaluations of its checkpoints.
#[utoipa::path(get, path = "/v1/training/metrics", params(("since" = Option<u64>, Query, description = "the first step; 0 unless given")), responses((status = 200, body = MetricsResponse)))]
async fn get_training_metrics(
    State(app): State<App>,
    Params(MetricsParams { since }): Params<MetricsParams>,
) -> Result<Json<MetricsResponse>, ApiError> {
    let data = app.db.metrics_since(since, MAX_ROWS).await?;
    let rows = app.db.checkpoints().await?;
    let since = rows.into_iter().rev().filter(|row| row.step >= since);
    let evaluations = since.filter_map(|row| {
        Some(EvaluationRow {
            checkpoint: row.id,
            step: row.step,
            created_at: row.created_at,
            evaluation: row.evaluation?,
        })
    });
    Ok(Json(MetricsResponse {
        data,
        evaluations: evaluations.collect(),
    }))
}
