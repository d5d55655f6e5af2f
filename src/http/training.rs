//! `/v1/training`: what the trainer does, how to pause it, its series.

use axum::{Json, Router, extract::State, routing::get};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Params, parse},
    json::name,
};
use crate::{
    app::App,
    db::{CheckpointRole, CheckpointStatus, DecidedBy, StepMetrics},
    train::TrainingStatus,
    types::CheckpointId,
};

/// Most rows of the series in one answer; beyond it the series is thinned.
const MOST_ROWS: u32 = 2000;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/training", get(status).patch(change))
        .route("/v1/training/metrics", get(metrics))
}

#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    training: TrainingStatus,
    checkpoint: Newest,
}

#[derive(Serialize)]
struct Newest {
    /// The one that serves.
    live: Option<CheckpointId>,
    /// The newest complete one.
    latest: Option<CheckpointId>,
    /// Whether the live one serves by a person's choice that holds: the gate replaces it only after `POST /v1/checkpoints/auto`.
    held: bool,
    /// Who decided that the live one serves.
    decided_by: Option<DecidedBy>,
    /// Why it serves.
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default, deserialize_with = "name")]
    state: Option<Wish>,
    learning_rate: Option<f32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wish {
    Paused,
    Running,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    #[serde(default)]
    since: u64,
}

#[derive(Serialize)]
struct Series {
    data: Vec<StepMetrics>,
    evaluations: Vec<Judged>,
}

/// A checkpoint's evaluation on held-out pairs.
#[derive(Serialize)]
struct Judged {
    checkpoint: CheckpointId,
    step: u64,
    created_at: Timestamp,
    evaluation: Value,
}

async fn status(State(app): State<App>) -> Result<Json<Status>, ApiError> {
    let rows = app.db.checkpoints().await?;
    let latest = rows
        .iter()
        .find(|row| row.status == CheckpointStatus::Complete);
    let latest = latest.map(|row| row.id);
    let chosen = rows.iter().find(|row| row.role == CheckpointRole::Live);
    Ok(Json(Status {
        training: app.trainer.status(),
        checkpoint: Newest {
            live: app.serving.live().map(|live| live.id),
            latest,
            held: chosen.is_some_and(|row| row.held),
            decided_by: chosen.and_then(|row| row.decided_by),
            reason: chosen.and_then(|row| row.reason.clone()),
        },
    }))
}

/// Everything is checked before anything changes.
async fn change(State(app): State<App>, Body(body): Body) -> Result<Json<Status>, ApiError> {
    let change: Change = parse(body, Ok).await?;
    if change.state.is_none() && change.learning_rate.is_none() {
        let message = "nothing to change: send \"state\" (paused or running) or \"learning_rate\"";
        return Err(ApiError::BadRequest(Problem::new("missing_field", message)));
    }
    if let Some(rate) = change.learning_rate {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(ApiError::invalid(
                "invalid_value",
                "learning_rate",
                "learning_rate must be above 0",
            ));
        }
        let set = app.trainer.set_learning_rate(rate).await;
        set.map_err(|error| ApiError::from(error).at("learning_rate"))?;
    }
    if let Some(wish) = change.state {
        app.trainer.set_paused(matches!(wish, Wish::Paused)).await?;
    }
    status(State(app)).await
}

async fn metrics(
    State(app): State<App>,
    Params(Since { since }): Params<Since>,
) -> Result<Json<Series>, ApiError> {
    let data = app.db.metrics_since(since, MOST_ROWS).await?;
    let rows = app.db.checkpoints().await?;
    let judged = rows.into_iter().rev().filter(|row| row.step >= since);
    let evaluations = judged.filter_map(|row| {
        Some(Judged {
            checkpoint: row.id,
            step: row.step,
            created_at: row.created_at,
            evaluation: row.evaluation?,
        })
    });
    Ok(Json(Series {
        data,
        evaluations: evaluations.collect(),
    }))
}
