//! `GET /v1/models`: the names that embeddings can be asked under, in OpenAI's shape, and how a name is read.

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::Id,
    words::quoted,
};
use crate::{
    app::App,
    checkpoint::{CheckpointError, Manifest},
    db::CheckpointStatus,
    serve::Which,
    types::CheckpointId,
};

/// The name of whichever checkpoint is live.
pub(super) const LIVE: &str = "kith";

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{id}", get(one))
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created: i64,
    owned_by: &'static str,
    /// Values in an embedding.
    dimensions: usize,
    /// Values in the hidden features.
    hidden_dimensions: usize,
    /// Side of the square input in pixels.
    input_size: usize,
    step: u64,
    checkpoint: CheckpointId,
}

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// The name that pins a checkpoint.
pub(super) fn name(id: CheckpointId) -> String {
    format!("{LIVE}@{id}")
}

/// Reads a model's name: the live one's, a pinned one's, or one that a caller gave.
pub(super) async fn which(app: &App, model: &str) -> Result<Which, ApiError> {
    if model == LIVE {
        return Ok(Which::Live);
    }
    let pinned = model
        .strip_prefix(LIVE)
        .and_then(|rest| rest.strip_prefix('@'));
    if let Some(Ok(id)) = pinned.map(str::parse) {
        return Ok(Which::Pinned(id));
    }
    let aliases = app.db.aliases().await?;
    match aliases.into_iter().find(|alias| alias.name == model) {
        Some(alias) => Ok(alias.checkpoint.map_or(Which::Live, Which::Pinned)),
        None => Err(unknown(model)),
    }
}

fn unknown(model: &str) -> ApiError {
    let model = quoted(model);
    let message = format!(
        "there is no model {model}: ask for \"kith\" or \"kith@CHECKPOINT\" (GET /v1/models lists them)"
    );
    ApiError::NotFound(Problem::new("unknown_model", message).at("model"))
}

async fn list(State(app): State<App>) -> Result<Json<List>, ApiError> {
    let mut data = Vec::new();
    if let Some(live) = app.serving.live() {
        data.push(describe(&app, LIVE.to_owned(), live.id).await?);
    }
    let rows = app.db.checkpoints().await?;
    for row in rows
        .iter()
        .filter(|row| row.status == CheckpointStatus::Complete)
    {
        match describe(&app, name(row.id), row.id).await {
            Ok(model) => data.push(model),
            // Deleted or damaged meanwhile: not a name that can be asked for.
            Err(_) => continue,
        }
    }
    for alias in app.db.aliases().await? {
        let target = alias.checkpoint.or(app.serving.live().map(|live| live.id));
        if let Some(id) = target
            && let Ok(model) = describe(&app, alias.name, id).await
        {
            data.push(model);
        }
    }
    Ok(Json(List {
        object: "list",
        data,
    }))
}

async fn one(State(app): State<App>, Id(id): Id<String>) -> Result<Json<Model>, ApiError> {
    let checkpoint = match which(&app, &id).await? {
        Which::Live => app.serving.model(Which::Live).await?.id,
        Which::Pinned(checkpoint) => checkpoint,
    };
    Ok(Json(describe(&app, id, checkpoint).await?))
}

/// From the manifest: describing a model does not load it.
async fn describe(
    app: &App,
    id: String,
    checkpoint: CheckpointId,
) -> Result<Model, CheckpointError> {
    let Manifest {
        created_at,
        encoder,
        step,
        ..
    } = app.checkpoints.manifest(checkpoint).await?;
    Ok(Model {
        id,
        object: "model",
        created: created_at.as_second(),
        owned_by: LIVE,
        dimensions: encoder.dim,
        hidden_dimensions: 8 * encoder.width,
        input_size: encoder.side,
        step,
        checkpoint,
    })
}
