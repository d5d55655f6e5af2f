//! `/v1/aliases`: names that requests may use for a model, moved by callers.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, parse},
    models::LIVE,
    words::quoted,
};
use crate::{app::App, db::Alias, types::CheckpointId};

/// The target of a name that follows the live checkpoint.
const AUTO: &str = "auto";
/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Most names.
const MAX_ALIASES: usize = 1000;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/aliases", get(list))
        .route("/v1/aliases/{name}", put(set).delete(remove))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasRequest {
    checkpoint: String,
}

#[derive(Serialize)]
struct AliasAnswer {
    name: String,
    /// An id, or `auto`: whichever is live.
    checkpoint: String,
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct AliasList {
    data: Vec<AliasAnswer>,
}

impl From<Alias> for AliasAnswer {
    fn from(alias: Alias) -> Self {
        let checkpoint = alias.checkpoint.map(|id| id.to_string());
        Self {
            name: alias.name,
            checkpoint: checkpoint.unwrap_or_else(|| AUTO.to_owned()),
            updated_at: alias.updated_at,
        }
    }
}

async fn list(State(app): State<App>) -> Result<Json<AliasList>, ApiError> {
    let aliases = app.db.aliases().await?;
    Ok(Json(AliasList {
        data: aliases.into_iter().map(AliasAnswer::from).collect(),
    }))
}

/// The move is one row: a request finds the old target or the new one.
async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<AliasAnswer>, ApiError> {
    check_name(&name)?;
    let request: AliasRequest = parse(body, Ok).await?;
    let target = target(&request.checkpoint)?;
    let aliases = app.db.aliases().await?;
    if aliases.len() >= MAX_ALIASES && aliases.iter().all(|alias| alias.name != name) {
        let message = format!("there are {MAX_ALIASES} names already: delete one first");
        return Err(ApiError::Conflict(Problem::new(
            "too_many_aliases",
            message,
        )));
    }
    app.checkpoints.set_alias(&name, target).await?;
    let aliases = app.db.aliases().await?;
    let set = aliases.into_iter().find(|alias| alias.name == name);
    set.map(|alias| Json(alias.into()))
        .ok_or_else(|| unknown(&name))
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    if app.db.delete_alias(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&name))
    }
}

fn target(text: &str) -> Result<Option<CheckpointId>, ApiError> {
    if text == AUTO {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message =
            "checkpoint is neither \"auto\" nor the id of one: GET /v1/checkpoints lists them";
        ApiError::invalid("invalid_id", "checkpoint", message)
    })
}

/// Names that cannot be mistaken for the live model or a pinned one, and that a URL holds as they are.
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
    let message = format!("there is no name {name}: GET /v1/aliases lists those there are");
    ApiError::NotFound(Problem::new("unknown_alias", message).at("name"))
}
