//! `GET /v1/models`: the names that a request's `model` may have, in OpenAI's shape, and how a name is resolved.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::Id,
    text::quoted,
};
use crate::{
    app::App,
    checkpoint::{CheckpointError, Manifest, Origin, preprocessing_hash},
    db::CheckpointStatus,
    serve::Which,
    types::CheckpointId,
};
use kith_pixels::Preprocessing;

/// The name of the live checkpoint.
pub(super) const LIVE: &str = "kith";

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list_models))
        .routes(routes!(get_model))
}

#[derive(Serialize, utoipa::ToSchema)]
struct ModelResponse {
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
    /// Encoders: 1 for both sides of pairs, or 2, one for each. With 2, requests for embeddings need `input_type`.
    towers: usize,
    step: u64,
    checkpoint: CheckpointId,
    /// What is done to an image before the network sees it.
    preprocessing: Preprocessing,
    /// Twelve hexadecimal digits that change with `preprocessing`.
    preprocessing_hash: String,
    /// Where the first weights came from, of which these were trained; null: not known.
    origin: Option<Origin>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelResponse>,
}

/// The name of one checkpoint, live or not.
pub(super) fn pinned_name(id: CheckpointId) -> String {
    format!("{LIVE}@{id}")
}

/// The checkpoint that a name stands for: the live one, a pinned one, or an alias's target.
pub(super) async fn resolve(app: &App, model: &str) -> Result<Which, ApiError> {
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
    ApiError::NotFound(Problem::new("unknown_model", message).with_param("model"))
}

/// The names that `model` of a request may have, in OpenAI's shape.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelList)))]
async fn list_models(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let mut data = Vec::new();
    // Its files may go while this is read, where another is promoted meanwhile.
    if let Some(live) = app.serving.live()
        && let Ok(model) = describe(&app, LIVE.to_owned(), live.id).await
    {
        data.push(model);
    }
    let rows = app.db.checkpoints().await?;
    for row in rows
        .iter()
        .filter(|row| row.status == CheckpointStatus::Complete)
    {
        match describe(&app, pinned_name(row.id), row.id).await {
            Ok(model) => data.push(model),
            // It was deleted meanwhile, or is damaged: requests cannot name it.
            Err(_) => continue,
        }
    }
    let aliases = app.db.aliases().await?.into_iter();
    for alias in aliases.filter(|alias| alias.name != LIVE) {
        let target = alias.checkpoint.or(app.serving.live().map(|live| live.id));
        if let Some(id) = target
            && let Ok(model) = describe(&app, alias.name, id).await
        {
            data.push(model);
        }
    }
    Ok(Json(ModelList {
        object: "list",
        data,
    }))
}

/// One model, described by the manifest of its checkpoint.
#[utoipa::path(get, path = "/v1/models/{id}", params(("id" = String, Path, description = "`kith`, `kith@CHECKPOINT`, or an alias")), responses((status = 200, body = ModelResponse), (status = 404, description = "unknown_id unknown_model unknown_checkpoint"), (status = 409, description = "checkpoint_damaged"), (status = 503, description = "not_ready")))]
async fn get_model(
    State(app): State<App>,
    Id(id): Id<String>,
) -> Result<Json<ModelResponse>, ApiError> {
    let checkpoint = match resolve(&app, &id).await? {
        Which::Live => app.serving.model(Which::Live).await?.id,
        Which::Pinned(checkpoint) => checkpoint,
    };
    Ok(Json(describe(&app, id, checkpoint).await?))
}

/// Describes a checkpoint by its manifest, without loading it.
async fn describe(
    app: &App,
    id: String,
    checkpoint: CheckpointId,
) -> Result<ModelResponse, CheckpointError> {
    let manifest = app.checkpoints.manifest(checkpoint).await?;
    let preprocessing = manifest.preprocessing();
    let Manifest {
        created_at,
        encoder,
        step,
        origin,
        ..
    } = manifest;
    Ok(ModelResponse {
        id,
        object: "model",
        created: created_at.as_second(),
        owned_by: LIVE,
        dimensions: encoder.dim,
        hidden_dimensions: 8 * encoder.width,
        input_size: encoder.side,
        towers: encoder.towers,
        step,
        checkpoint,
        preprocessing_hash: preprocessing_hash(&preprocessing),
        preprocessing,
        origin,
    })
}
