//! `/v1/checkpoints`: takes snapshots; lists, downloads, promotes, annotates and deletes checkpoints.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    download::Download,
    error::{ApiError, Problem},
    extract::{Body, Id, Params},
    json::parse,
    text::quoted,
    to_the_end::to_the_end,
};
use crate::{
    app::App,
    blobs::BlobKey,
    checkpoint::{CheckpointError, MANIFEST, Manifest, Part},
    db::{CheckpointRole, CheckpointRow, CheckpointStatus, DecidedBy, Verdict},
    serve::Which,
    types::CheckpointId,
};
use kith_eval::Evaluation;

/// Most characters of a note.
const MAX_NOTE: usize = 4096;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(take_snapshot, list_checkpoints))
        .routes(routes!(release_hold))
        .routes(routes!(
            get_checkpoint,
            update_checkpoint,
            delete_checkpoint
        ))
        .routes(routes!(promote_checkpoint))
        .routes(routes!(download_file))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SnapshotRequest {
    /// At most 4,096 characters.
    #[schema(max_length = 4096)]
    note: Option<String>,
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PromoteRequest {
    /// Whether the promotion holds until it is released; so unless given.
    hold: Option<bool>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckpointUpdate)]
struct UpdateRequest {
    /// At most 4,096 characters. An empty note is removed.
    #[schema(max_length = 4096)]
    note: Option<String>,
    keep: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotParams {
    #[serde(default)]
    wait: bool,
}

/// A snapshot that is being written.
#[derive(Serialize, utoipa::ToSchema)]
struct SnapshotBegun {
    id: CheckpointId,
    status: CheckpointStatus,
}

#[derive(Serialize, utoipa::ToSchema)]
struct CheckpointResponse {
    id: CheckpointId,
    status: CheckpointStatus,
    role: CheckpointRole,
    step: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    note: Option<String>,
    bytes: u64,
    /// The files of a complete checkpoint whose manifest can be read. In the answer about one checkpoint only.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<Part>>,
    /// On held-out pairs.
    #[schema(value_type = Option<Evaluation>)]
    evaluation: Option<Value>,
    /// The gate's verdict on the evaluation.
    verdict: Option<Verdict>,
    /// Who promoted it, if it was ever live.
    decided_by: Option<DecidedBy>,
    #[schema(value_type = Option<String>, format = DateTime)]
    decided_at: Option<Timestamp>,
    /// Why it failed, was promoted, or was refused.
    reason: Option<String>,
    /// Whether retention never prunes it.
    keep: bool,
    /// Whether it is live by a caller's promotion that holds.
    held: bool,
    parent: Option<CheckpointId>,
}

impl From<CheckpointRow> for CheckpointResponse {
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

#[derive(Serialize, utoipa::ToSchema)]
struct CheckpointList {
    data: Vec<CheckpointResponse>,
}

/// Takes a snapshot.
///
/// Answers 202 with the checkpoint's `location`, or with `?wait=true` 201 once it is complete.
#[utoipa::path(post, path = "/v1/checkpoints", params(("wait" = Option<bool>, Query, description = "answer when it is complete; `false` unless given")), request_body = Option<SnapshotRequest>, responses((status = 202, description = "It is being written.", body = SnapshotBegun, headers(("location" = String))), (status = 201, description = "It is complete.", body = CheckpointResponse, headers(("location" = String))), (status = 404, description = "unknown_checkpoint"), (status = 409, description = "checkpoint_quota training_disabled weights_not_finite checkpoint_not_finite checkpoint_damaged"), (status = 503, description = "training_failed snapshot_failed"), (status = 507, description = "storage_full")))]
async fn take_snapshot(
    State(app): State<App>,
    Params(SnapshotParams { wait }): Params<SnapshotParams>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request: SnapshotRequest = or_default(body).await?;
    check_note(request.note.as_deref())?;
    let id = app.trainer.snapshot(request.note).await?;
    let location = [(header::LOCATION, format!("/v1/checkpoints/{id}"))];
    if !wait {
        let body = Json(SnapshotBegun {
            id,
            status: CheckpointStatus::Writing,
        });
        return Ok((StatusCode::ACCEPTED, location, body).into_response());
    }
    let row = app.trainer.written(id).await?;
    Ok((
        StatusCode::CREATED,
        location,
        Json(describe(&app, row).await?),
    )
        .into_response())
}

/// The checkpoints, newest first.
#[utoipa::path(get, path = "/v1/checkpoints", responses((status = 200, body = CheckpointList)))]
async fn list_checkpoints(State(app): State<App>) -> Result<Json<CheckpointList>, ApiError> {
    let rows = app.db.checkpoints().await?;
    Ok(Json(CheckpointList {
        data: rows.into_iter().map(CheckpointResponse::from).collect(),
    }))
}

/// One checkpoint, with its files.
#[utoipa::path(get, path = "/v1/checkpoints/{id}", params(("id" = CheckpointId, Path, description = "the checkpoint's id")), responses((status = 200, body = CheckpointResponse), (status = 404, description = "unknown_id unknown_checkpoint")))]
async fn get_checkpoint(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
) -> Result<Json<CheckpointResponse>, ApiError> {
    response(&app, id).await
}

/// The answer about one checkpoint. Its files are left out where the manifest cannot be read: what was asked for has been done.
async fn describe(app: &App, row: CheckpointRow) -> Result<CheckpointResponse, ApiError> {
    let files = match row.status {
        CheckpointStatus::Complete => match app.checkpoints.manifest(row.id).await {
            Ok(manifest) => Some(manifest.parts),
            Err(CheckpointError::Damaged { id, what }) => {
                tracing::error!(checkpoint = %id, what, "the manifest of a checkpoint cannot be read");
                None
            }
            Err(error) => return Err(error.into()),
        },
        CheckpointStatus::Writing | CheckpointStatus::Failed => None,
    };
    Ok(CheckpointResponse {
        files,
        ..row.into()
    })
}

/// Streams one file of a checkpoint.
// The name is looked up in the manifest, so that no path is made from a client's text.
#[utoipa::path(get, path = "/v1/checkpoints/{id}/files/{name}", params(("id" = CheckpointId, Path, description = "the checkpoint's id"), ("name" = String, Path, description = "one of the checkpoint's `files`, or `manifest.json`"), ("range" = Option<String>, Header, description = "the bytes wanted, such as `bytes=0-1023`; what is no single range asks for the whole"), ("if-range" = Option<String>, Header, description = "`range` counts only if this is the file's `etag`"), ("if-none-match" = Option<String>, Header, description = "304 if this is the file's `etag`")), responses((status = 200, description = "The whole file.", content((Vec<u8> = "application/octet-stream"), (Manifest = "application/json")), headers(("etag" = String), ("accept-ranges" = String))), (status = 206, description = "A part of the file.", body = Vec<u8>, content_type = "application/octet-stream", headers(("etag" = String), ("content-range" = String))), (status = 304, description = "The client has this version."), (status = 416, description = "invalid_range"), (status = 404, description = "unknown_id unknown_checkpoint unknown_file not_found"), (status = 409, description = "checkpoint_damaged")))]
async fn download_file(
    State(app): State<App>,
    Id((id, name)): Id<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let unknown_file = || {
        let (name, id) = (quoted(&name), quoted(&id));
        let message = format!(
            "there is no file {name} in checkpoint {id}: GET /v1/checkpoints/ID lists its files"
        );
        ApiError::NotFound(Problem::new("unknown_file", message).with_param("name"))
    };
    let checkpoint: CheckpointId = id.parse().map_err(|_| unknown_file())?;
    // From here on retention leaves it; a caller may delete it all the same.
    let in_use = app.checkpoints.begin_use(checkpoint);
    let found = match stored_file(&app, checkpoint, &name).await {
        Err(CheckpointError::Damaged { .. }) if app.checkpoints.is_gone(checkpoint).await? => {
            return Err(unknown(checkpoint));
        }
        found => found?,
    };
    let part = match found {
        StoredFile::Manifest(manifest) => return Ok(Json(manifest).into_response()),
        StoredFile::Part(part) => part.ok_or_else(unknown_file)?,
    };
    let key = BlobKey::CheckpointPart(checkpoint, part.name.clone());
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
        request_headers: &headers,
    };
    download.respond(&app.blobs, in_use).await
}

/// A file that a caller asks for by name.
enum StoredFile {
    Manifest(Box<Manifest>),
    /// `None`: the manifest does not name it.
    Part(Option<Part>),
}

/// Looks a file up, with its length on disk: an answer that has begun cannot become an error. The client checks the hash.
async fn stored_file(
    app: &App,
    id: CheckpointId,
    name: &str,
) -> Result<StoredFile, CheckpointError> {
    let manifest = app.checkpoints.manifest(id).await?;
    if name == MANIFEST {
        return Ok(StoredFile::Manifest(manifest.into()));
    }
    let Some(part) = manifest.part(name).cloned() else {
        return Ok(StoredFile::Part(None));
    };
    let key = BlobKey::CheckpointPart(id, part.name.clone());
    if app.blobs.size(&key).await.ok() != Some(part.bytes) {
        let what = format!("{} is missing or has another length", part.name);
        return Err(CheckpointError::Damaged { id, what });
    }
    Ok(StoredFile::Part(Some(part)))
}

/// Serves a checkpoint; an older one is a rollback.
///
/// Answers once the checkpoint is live. The promotion holds until it is released, unless the request has `"hold": false`.
#[utoipa::path(post, path = "/v1/checkpoints/{id}/promote", params(("id" = CheckpointId, Path, description = "the checkpoint's id")), request_body = Option<PromoteRequest>, responses((status = 200, body = CheckpointResponse), (status = 404, description = "unknown_id unknown_checkpoint"), (status = 409, description = "checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 503, description = "not_ready"), (status = 507, description = "storage_full")))]
async fn promote_checkpoint(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
    Body(body): Body,
) -> Result<Json<CheckpointResponse>, ApiError> {
    let request: PromoteRequest = or_default(body).await?;
    let hold = request.hold.unwrap_or(true);
    // A checkpoint that cannot be loaded is refused before its row says that it is live.
    app.serving.model(Which::Pinned(id)).await?;
    to_the_end(async move {
        app.checkpoints.promote(id, hold).await?;
        app.serving.follow_now().await?;
        response(&app, id).await
    })
    .await
}

/// Lets the gate promote again; answers with the live checkpoint.
#[utoipa::path(post, path = "/v1/checkpoints/auto", responses((status = 200, body = CheckpointResponse), (status = 404, description = "unknown_checkpoint"), (status = 409, description = "checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 503, description = "not_ready"), (status = 507, description = "storage_full")))]
async fn release_hold(State(app): State<App>) -> Result<Json<CheckpointResponse>, ApiError> {
    to_the_end(async move {
        app.checkpoints.release().await?;
        app.serving.follow_now().await?;
        let live = app.db.live_checkpoint().await?;
        let live = live.ok_or_else(ApiError::no_checkpoint)?;
        Ok(Json(describe(&app, live).await?))
    })
    .await
}

/// Sets the note, and whether retention keeps the checkpoint.
///
/// A note keeps it unless the request has `"keep": false`. Needs at least one field.
#[utoipa::path(patch, path = "/v1/checkpoints/{id}", params(("id" = CheckpointId, Path, description = "the checkpoint's id")), request_body = UpdateRequest, responses((status = 200, body = CheckpointResponse), (status = 404, description = "unknown_id unknown_checkpoint"), (status = 409, description = "checkpoint_quota"), (status = 507, description = "storage_full")))]
async fn update_checkpoint(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
    Body(body): Body,
) -> Result<Json<CheckpointResponse>, ApiError> {
    let request: UpdateRequest = parse(body, Ok).await?;
    check_note(request.note.as_deref())?;
    let noted = request.note.as_deref().is_some_and(|note| !note.is_empty());
    let keep = request.keep.or(noted.then_some(true));
    if keep.is_none() && request.note.is_none() {
        let message = "nothing to change: send \"note\" or \"keep\"";
        return Err(ApiError::BadRequest(Problem::new("missing_field", message)));
    }
    to_the_end(async move {
        if let Some(keep) = keep {
            app.checkpoints.keep(id, keep).await?;
        }
        if let Some(note) = request.note {
            let note = Some(note.as_str()).filter(|note| !note.is_empty());
            app.checkpoints.note(id, note).await?;
        }
        response(&app, id).await
    })
    .await
}

async fn response(app: &App, id: CheckpointId) -> Result<Json<CheckpointResponse>, ApiError> {
    let row = app.db.checkpoint(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(describe(app, row).await?))
}

/// The JSON body, or the default for an empty body.
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
    if note.is_none_or(|note| note.chars().count() <= MAX_NOTE) {
        return Ok(());
    }
    let message = format!("a note has at most {MAX_NOTE} characters");
    Err(ApiError::invalid("invalid_field", "note", message))
}

/// Deletes a checkpoint.
#[utoipa::path(delete, path = "/v1/checkpoints/{id}", params(("id" = CheckpointId, Path, description = "the checkpoint's id")), responses((status = 204, description = "It is deleted."), (status = 404, description = "unknown_id unknown_checkpoint"), (status = 409, description = "checkpoint_live checkpoint_aliased"), (status = 507, description = "storage_full")))]
async fn delete_checkpoint(
    State(app): State<App>,
    Id(id): Id<CheckpointId>,
) -> Result<StatusCode, ApiError> {
    to_the_end(async move {
        app.checkpoints.delete(id).await?;
        app.serving.forget(id);
        app.search.forget_checkpoint(id).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn unknown(id: CheckpointId) -> ApiError {
    let message = format!("there is no checkpoint {id}: GET /v1/checkpoints lists them");
    ApiError::NotFound(Problem::new("unknown_checkpoint", message).with_param("id"))
}
