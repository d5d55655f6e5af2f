//! `/v1/aliases`: names that stand for a checkpoint, or for the live one, in a request's `model`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::Body,
    json::{Object, parse},
    models::LIVE,
    text::quoted,
};
use crate::{
    app::App,
    db::{Alias, Canary},
    serve::Comparison,
    types::CheckpointId,
};

/// The target of an alias that follows the live checkpoint.
const AUTO: &str = "auto";
/// Most bytes of a name.
const MAX_NAME: usize = 64;
/// Most aliases.
const MAX_ALIASES: usize = 1000;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list_aliases))
        .routes(routes!(put_alias, delete_alias))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct AliasRequest {
    /// A checkpoint's id, or `auto` for the live one.
    #[schema(pattern = "^(auto|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$")]
    checkpoint: String,
    /// A candidate to try under the name; without it none is tried.
    #[schema(value_type = Option<CanaryRequest>)]
    canary: Option<Object<CanaryRequest>>,
}

/// A candidate to try under a name.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CanaryRequest {
    /// A checkpoint's id.
    #[schema(format = Uuid)]
    checkpoint: String,
    /// Share of the API keys that it answers, or of the images that a shadow is compared on.
    #[schema(exclusive_minimum = 0, maximum = 100)]
    percent: f64,
    /// Whether it is compared and never answers.
    shadow: Option<bool>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct AliasResponse {
    name: String,
    /// An id, or `auto` for the live checkpoint.
    checkpoint: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// The candidate that is tried under the name.
    canary: Option<CanaryResponse>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct CanaryResponse {
    checkpoint: CheckpointId,
    percent: f64,
    shadow: bool,
    /// Images that both have embedded, of a shadow.
    compared_images: u64,
    /// Mean share of the ten nearest neighbours that are the same to both; null until there are enough images.
    shared_neighbours: Option<f64>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct AliasList {
    data: Vec<AliasResponse>,
}

/// All names, as answers.
async fn all(app: &App) -> Result<Vec<AliasResponse>, ApiError> {
    let canaries = app.db.canaries().await?;
    let response = |alias: Alias| {
        let own = canaries.iter().find(|canary| canary.name == alias.name);
        let checkpoint = alias.checkpoint.map(|id| id.to_string());
        AliasResponse {
            canary: own.map(|canary| describe(app, canary)),
            checkpoint: checkpoint.unwrap_or_else(|| AUTO.to_owned()),
            name: alias.name,
            updated_at: alias.updated_at,
        }
    };
    let aliases = app.db.aliases().await?;
    Ok(aliases.into_iter().map(response).collect())
}

fn describe(app: &App, canary: &Canary) -> CanaryResponse {
    let Comparison {
        images,
        shared_neighbours,
    } = app.serving.comparison(&canary.name);
    CanaryResponse {
        checkpoint: canary.checkpoint,
        percent: canary.percent,
        shadow: canary.shadow,
        compared_images: images,
        shared_neighbours,
    }
}

/// The aliases.
#[utoipa::path(get, path = "/v1/aliases", responses((status = 200, body = AliasList)))]
async fn list_aliases(State(app): State<App>) -> Result<Json<AliasList>, ApiError> {
    Ok(Json(AliasList {
        data: all(&app).await?,
    }))
}

/// Sets or moves an alias, and the canary under it. A request sees both as they were or as they are.
#[utoipa::path(put, path = "/v1/aliases/{name}", params(("name" = String, Path, description = "the alias, or `kith` for a canary under it", pattern = "^[A-Za-z0-9._-]{1,64}$")), request_body = AliasRequest, responses((status = 200, body = AliasResponse), (status = 400, description = "invalid_request invalid_name invalid_id invalid_field missing_field"), (status = 404, description = "unknown_checkpoint unknown_alias"), (status = 409, description = "too_many_aliases checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 507, description = "storage_full")))]
async fn put_alias(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<AliasResponse>, ApiError> {
    check_name(&name)?;
    let request: AliasRequest = parse(body, Ok).await?;
    let target = parse_target(&request.checkpoint)?;
    if name == LIVE && target.is_some() {
        let message = "\"kith\" is always the live checkpoint: promote another (POST /v1/checkpoints/ID/promote), and send \"auto\" here";
        return Err(ApiError::invalid("invalid_field", "checkpoint", message));
    }
    let canary = request.canary.map(|Object(canary)| canary.read(&name));
    let canary = canary.transpose()?;
    let aliases = app.db.aliases().await?;
    if aliases.len() >= MAX_ALIASES && aliases.iter().all(|alias| alias.name != name) {
        let message = format!("there are {MAX_ALIASES} aliases already: delete one first");
        return Err(ApiError::Conflict(Problem::new(
            "too_many_aliases",
            message,
        )));
    }
    app.checkpoints
        .set_alias(&name, target, canary.as_ref())
        .await?;
    app.serving.follow_trials().await?;
    let mut aliases = all(&app).await?.into_iter();
    let alias = aliases.find(|alias| alias.name == name);
    alias.map(Json).ok_or_else(|| unknown(&name))
}

/// Removes an alias.
#[utoipa::path(delete, path = "/v1/aliases/{name}", params(("name" = String, Path, description = "the alias, or `kith` for the canary under it", pattern = "^[A-Za-z0-9._-]{1,64}$")), responses((status = 204, description = "It is removed."), (status = 400, description = "invalid_request"), (status = 404, description = "unknown_alias"), (status = 507, description = "storage_full")))]
async fn delete_alias(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    if !app.db.delete_alias(&name).await? {
        return Err(unknown(&name));
    }
    app.serving.follow_trials().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl CanaryRequest {
    fn read(self, name: &str) -> Result<Canary, ApiError> {
        let checkpoint = self.checkpoint.parse().map_err(|_| {
            let message = "this is not a checkpoint's id: GET /v1/checkpoints lists the ids";
            ApiError::invalid("invalid_id", "canary.checkpoint", message)
        })?;
        if !(self.percent > 0.0 && self.percent <= 100.0) {
            let message = "percent must be above 0 and at most 100: leave canary out to try none";
            return Err(ApiError::invalid(
                "invalid_field",
                "canary.percent",
                message,
            ));
        }
        Ok(Canary {
            name: name.to_owned(),
            checkpoint,
            percent: self.percent,
            shadow: self.shadow.unwrap_or(false),
        })
    }
}

fn parse_target(text: &str) -> Result<Option<CheckpointId>, ApiError> {
    if text == AUTO {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message =
            "checkpoint is neither \"auto\" nor a checkpoint's id: GET /v1/checkpoints lists the ids";
        ApiError::invalid("invalid_id", "checkpoint", message)
    })
}

/// Refuses names that could be mistaken for a pinned model, and names that a URL would have to escape.
fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) {
        return Ok(());
    }
    let message = format!("a name has 1 to {MAX_NAME} letters, digits, '-', '_' or '.'");
    Err(ApiError::invalid("invalid_name", "name", message))
}

fn unknown(name: &str) -> ApiError {
    let name = quoted(name);
    let message = format!("there is no alias {name}: GET /v1/aliases lists them");
    ApiError::NotFound(Problem::new("unknown_alias", message).with_param("name"))
}
