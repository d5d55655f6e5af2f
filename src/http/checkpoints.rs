//! `/v1/checkpoints`: snapshots taken, listed, given out, promoted, kept, deleted.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    context::Context,
    download::Download,
    error::{ApiError, Problem},
    extract::{Body, Id, Params, parse},
    words::quoted,
};
use crate::{
    app::App,
    blobs::BlobKey,
    checkpoint::{CheckpointError, Part},
    db::{CheckpointRole, CheckpointRow, CheckpointStatus, DecidedBy, Verdict},
    serve::Which,
    types::CheckpointId,
};

const MANIFEST: &str = "manifest.json";

/// Longest note, in bytes.
const MAX_NOTE: usize = 4096;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/checkpoints", post(snapshot).get(list))
        .route("/v1/checkpoints/auto", post(release))
        .route(
            "/v1/checkpoints/{id}",
            get(one).patch(change).delete(remove),
        )
        .route("/v1/checkpoints/{id}/promote", post(promote))
        .route("/v1/checkpoints/{id}/files/{name}", get(file))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotRequest {
    note: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromotionRequest {
    hold: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRequest {
    note: Option<String>,
    keep: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: bool,
}

#[derive(Serialize)]
struct Checkpoint {
    id: CheckpointId,
    status: CheckpointStatus,
    role: CheckpointRole,
    step: u64,
    created_at: Timestamp,
    note: Option<String>,
    bytes: u64,
    /// In the answer about one checkpoint only, once it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<Part>>,
    evaluation: Option<Value>,
    /// What the evaluation found.
    verdict: Option<Verdict>,
    /// Who decided that it serves, if it ever did.
    decided_by: Option<DecidedBy>,
    decided_at: Option<Timestamp>,
    /// Why it failed, why it serves, or why it was refused.
    reason: Option<String>,
    /// Whether retention leaves it alone.
    keep: bool,
    /// Whether it serves by a person's choice that holds.
    held: bool,
    parent: Option<CheckpointId>,
}

impl From<CheckpointRow> for Checkpoint {
    fn from(row: CheckpointRow) -> Self {
        Self {
            id: row.id,
            status: row.status,
            role: row.role,
            step: row.step,
            created_at: row.created_at,
            note: row.note,
            bytes: row.bytes,
            files: None,
            evaluation: row.evaluation,
            verdict: row.verdict,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            reason: row.reason,
            keep: row.kept,
            held: row.held,
            parent: row.parent,
        }
    }
}

#[derive(Serialize)]
struct List {
    data: Vec<Checkpoint>,
}

/// 202 with the place to ask, or 201 when told to wait.
async fn snapshot(
    State(app): State<App>,
    Params(Wait { wait }): Params<Wait>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request: SnapshotRequest = or_default(body).await?;
    check_note(request.note.as_deref())?;
    let id = app.trainer.snapshot(request.note).await?;
    let location = [(header::LOCATION, format!("/v1/checkpoints/{id}"))];
    if !wait {
        let body = Json(json!({"id": id, "status": CheckpointStatus::Writing}));
        return Ok((StatusCode::ACCEPTED, location, body).into_response());
    }
    let row = app.trainer.written(id).await?;
    if row.status != CheckpointStatus::Complete {
        return Err(ApiError::internal(format!(
            "snapshot {id}: {:?}",
            row.reason
        )));
    }
    Ok((
        StatusCode::CREATED,
        location,
        Json(describe(&app, row).await?),
    )
        .into_response())
}

async fn list(State(app): State<App>) -> Result<Json<List>, ApiError> {
    let rows = app.db.checkpoints().await?;
    Ok(Json(List {
        data: rows.into_iter().map(Checkpoint::from).collect(),
    }))
}

async fn one(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
) -> Result<Json<Checkpoint>, ApiError> {
    show(&app, id).await
}

async fn describe(app: &App, row: CheckpointRow) -> Result<Checkpoint, ApiError> {
    let files = match row.status {
        CheckpointStatus::Complete => Some(app.checkpoints.manifest(row.id).await?.parts),
        CheckpointStatus::Writing | CheckpointStatus::Failed => None,
    };
    Ok(Checkpoint {
        files,
        ..row.into()
    })
}

/// The name is looked up in the manifest: no path is made of what a client says.
async fn file(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let lacking = || {
        let (name, id) = (quoted(&name), quoted(&id));
        let message = format!(
            "there is no file {name} in checkpoint {id}: GET /v1/checkpoints/ID lists its files"
        );
        ApiError::NotFound(Problem::new("unknown_file", message).at("name"))
    };
    let checkpoint: CheckpointId = id.parse().map_err(|_| lacking())?;
    let manifest = app.checkpoints.manifest(checkpoint).await?;
    if name == MANIFEST {
        return Ok(Json(manifest).into_response());
    }
    let part = manifest.part(&name).ok_or_else(lacking)?;
    let key = BlobKey::CheckpointPart(checkpoint, part.name.clone());
    // What is streamed cannot be taken back: at least the length is right before it begins; the client has the hash for the rest.
    if app.blobs.size(&key).await.ok() != Some(part.bytes) {
        let what = format!("{} is missing or has another length", part.name);
        let id = checkpoint;
        return Err(CheckpointError::Damaged { id, what }.into());
    }
    let download = Download {
        key,
        size: part.bytes,
        sha256: part.sha256.clone(),
        headers: [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (
                header::CONTENT_DISPOSITION,
                format!("attachment; filename=\"{}\"", part.name),
            ),
        ],
        request: &headers,
    };
    let in_use = app.checkpoints.begin_use(checkpoint);
    download.answer(&app.blobs, in_use).await
}

/// Answers once it serves here. The choice holds until it is released, unless the caller says otherwise.
async fn promote(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
    Body(body): Body,
) -> Result<Json<Checkpoint>, ApiError> {
    let request: PromotionRequest = or_default(body).await?;
    let hold = request.hold.unwrap_or(true);
    // What cannot serve is refused before the row says that it does.
    app.serving.model(Which::Pinned(id)).await?;
    app.checkpoints.promote(id, hold).await?;
    app.serving.follow_now().await?;
    show(&app, id).await
}

/// Gives the choice of what serves back to the gate; answers with what serves then.
async fn release(State(app): State<App>) -> Result<Json<Checkpoint>, ApiError> {
    app.checkpoints.release().await?;
    app.serving.follow_now().await?;
    let live = app.db.live_checkpoint().await?;
    let live = live.ok_or_else(|| {
        ApiError::Unavailable(Problem::new("not_ready", "no checkpoint is loaded yet"))
    })?;
    Ok(Json(describe(&app, live).await?))
}

/// A note makes a checkpoint one that is kept, unless the same request says otherwise. An empty note removes the one there is.
async fn change(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
    Body(body): Body,
) -> Result<Json<Checkpoint>, ApiError> {
    let request: ChangeRequest = parse(body, Ok).await?;
    check_note(request.note.as_deref())?;
    let noted = request.note.as_deref().is_some_and(|note| !note.is_empty());
    let keep = request.keep.or(noted.then_some(true));
    if keep.is_none() && request.note.is_none() {
        let message = "nothing to change: send \"note\" or \"keep\"";
        return Err(ApiError::BadRequest(Problem::new("missing_field", message)));
    }
    if let Some(keep) = keep {
        app.checkpoints.keep(id, keep).await?;
    }
    if let Some(note) = request.note {
        let note = Some(note.as_str()).filter(|note| !note.is_empty());
        app.checkpoints.note(id, note).await?;
    }
    show(&app, id).await
}

async fn show(app: &App, id: CheckpointId) -> Result<Json<Checkpoint>, ApiError> {
    let row = app.db.checkpoint(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(describe(app, row).await?))
}

/// An empty body asks for nothing in particular.
async fn or_default<T: Default + serde::de::DeserializeOwned + Send + 'static>(
    body: Bytes,
) -> Result<T, ApiError> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        parse(body, Ok).await
    }
}

fn check_note(note: Option<&str>) -> Result<(), ApiError> {
    if note.is_none_or(|note| note.len() <= MAX_NOTE) {
        return Ok(());
    }
    let message = format!("a note has at most {MAX_NOTE} bytes");
    Err(ApiError::invalid("invalid_field", "note", message))
}

async fn remove(State(app): State<App>, Id(id): Id<CheckpointId>) -> Result<StatusCode, ApiError> {
    app.checkpoints.delete(id).await?;
    app.serving.forget(id);
    Ok(StatusCode::NO_CONTENT)
}

fn unknown(id: CheckpointId) -> ApiError {
    let message = format!("no checkpoint {id}: GET /v1/checkpoints lists those there are");
    ApiError::NotFound(Problem::new("unknown_checkpoint", message).at("id"))
}
