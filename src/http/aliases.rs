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
    json::parse,
    models::LIVE,
    text::quoted,
};
use crate::{app::App, db::Alias, types::CheckpointId};

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
}

#[derive(Serialize, utoipa::ToSchema)]
struct AliasResponse {
    name: String,
    /// An id, or `auto` for the live checkpoint.
    checkpoint: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

#[derive(Serialize, utoipa::ToSchema)]
struct AliasList {
    data: Vec<AliasResponse>,
}

impl From<Alias> for AliasResponse {
    fn from(alias: Alias) -> Self {
        let checkpoint = alias.checkpoint.map(|id| id.to_string());
        Self {
            name: alias.name,
            checkpoint: checkpoint.unwrap_or_else(|| AUTO.to_owned()),
            updated_at: alias.updated_at,
        }
    }
}

/// The aliases.
#[utoipa::path(get, path = "/v1/aliases", responses((status = 200, body = AliasList)))]
async fn list_aliases(State(app): State<App>) -> Result<Json<AliasList>, ApiError> {
    let aliases = app.db.aliases().await?;
    Ok(Json(AliasList {
        data: aliases.into_iter().map(AliasResponse::from).collect(),
    }))
}

/// Sets or moves an alias. It is one row, so a request sees the old target or the new one.
#[utoipa::path(put, path = "/v1/aliases/{name}", params(("name" = String, Path, description = "the alias; not `kith`", pattern = "^[A-Za-z0-9._-]{1,64}$")), request_body = AliasRequest, responses((status = 200, body = AliasResponse), (status = 400, description = "invalid_request invalid_name invalid_id"), (status = 404, description = "unknown_checkpoint unknown_alias"), (status = 409, description = "too_many_aliases checkpoint_damaged checkpoint_not_finite"), (status = 507, description = "storage_full")))]
async fn put_alias(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<AliasResponse>, ApiError> {
    check_name(&name)?;
    let request: AliasRequest = parse(body, Ok).await?;
    let target = parse_target(&request.checkpoint)?;
    let aliases = app.db.aliases().await?;
    if aliases.len() >= MAX_ALIASES && aliases.iter().all(|alias| alias.name != name) {
        let message = format!("there are {MAX_ALIASES} aliases already: delete one first");
        return Err(ApiError::Conflict(Problem::new(
            "too_many_aliases",
            message,
        )));
    }
    app.checkpoints.set_alias(&name, target).await?;
    let aliases = app.db.aliases().await?;
    let alias = aliases.into_iter().find(|alias| alias.name == name);
    alias
        .map(|alias| Json(alias.into()))
        .ok_or_else(|| unknown(&name))
}

/// Removes an alias.
#[utoipa::path(delete, path = "/v1/aliases/{name}", params(("name" = String, Path, description = "the alias; not `kith`", pattern = "^[A-Za-z0-9._-]{1,64}$")), responses((status = 204, description = "It is removed."), (status = 400, description = "invalid_request"), (status = 404, description = "unknown_alias"), (status = 507, description = "storage_full")))]
async fn delete_alias(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    if app.db.delete_alias(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&name))
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

/// Refuses names that could be mistaken for the live or a pinned model, and names that a URL would have to escape.
fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) && name != LIVE {
        return Ok(());
    }
    let message = format!(
        "a name has 1 to {MAX_NAME} letters, digits, '-', '_' or '.', and is not \"{LIVE}\""
    );
    Err(ApiError::invalid("invalid_name", "name", message))
}

fn unknown(name: &str) -> ApiError {
    let name = quoted(name);
    let message = format!("there is no alias {name}: GET /v1/aliases lists them");
    ApiError::NotFound(Problem::new("unknown_alias", message).with_param("name"))
}
