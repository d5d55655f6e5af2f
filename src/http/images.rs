//! `/v1/images`: images stored by content, listed, given back, erased.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, Multipart, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    download::Download,
    error::{ApiError, Problem},
    extract::{Body, Id, Media, Params, parse},
    input::ImageInput,
    multipart::{next, unknown_part},
    page::{Page, PageParams},
    words::quoted,
};
use crate::{app::App, blobs::BlobKey, config::Settings, db::ImageRow, types::Sha256};
use kith_mcmc::ImageKey;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/images", post(add).get(list))
        .route("/v1/images/{id}", get(one).delete(remove))
        .route("/v1/images/{id}/content", get(content))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    image: ImageInput,
}

#[derive(Serialize)]
struct Image {
    id: String,
    bytes: u64,
    width: u32,
    height: u32,
    format: String,
    created_at: Timestamp,
    damaged: bool,
}

impl From<ImageRow> for Image {
    fn from(row: ImageRow) -> Self {
        Self {
            id: row.sha256.to_string(),
            bytes: row.bytes,
            width: row.width,
            height: row.height,
            format: row.format,
            created_at: row.created_at,
            damaged: row.damaged,
        }
    }
}

/// 201, or 200 when it was there already.
async fn add(
    State(app): State<App>,
    request: Request,
) -> Result<(StatusCode, Json<Image>), ApiError> {
    let bytes = read(&app.settings, request).await?;
    let (row, new) = app.ingest.add_image(bytes).await?;
    let status = match new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(row.into())))
}

async fn read(settings: &Settings, request: Request) -> Result<Bytes, ApiError> {
    const TAKEN: [Media; 3] = [Media::Image, Media::Multipart, Media::Json];
    let max_bytes = settings.limits.max_bytes;
    match Media::of(request.headers(), &TAKEN)? {
        Media::Multipart => file(Multipart::from_request(request, &()).await, max_bytes).await,
        Media::Json => {
            let Body(body) = Body::from_request(request, &()).await?;
            parse(body, move |document: Document| {
                document.image.bytes(max_bytes, "image")
            })
            .await
        }
        _ => Ok(Body::from_request(request, &()).await?.0),
    }
}

/// The one file of a form.
async fn file<E>(form: Result<Multipart, E>, max_bytes: usize) -> Result<Bytes, ApiError> {
    let lacking = || {
        let message = "send one file in the form";
        ApiError::BadRequest(Problem::new("invalid_multipart", message))
    };
    let mut form = form.map_err(|_| lacking())?;
    let part = next(&mut form, max_bytes).await?.ok_or_else(lacking)?;
    match next(&mut form, max_bytes).await? {
        Some(second) => Err(unknown_part(&second.name, "send one file at a time")),
        None => Ok(part.bytes),
    }
}

async fn list(
    State(app): State<App>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<Image>>, ApiError> {
    if params.group.is_some() {
        return Err(ApiError::invalid(
            "invalid_parameter",
            "group",
            "images have no group: list pairs by group",
        ));
    }
    let (after, limit) = params.read()?;
    let rows = app
        .db
        .images_after(ImageKey(after), limit + 1, params.damaged)
        .await?;
    Ok(Json(Page::of(rows, limit, |row| row.key.0, Image::from)))
}

async fn one(State(app): State<App>, Id(id): Id<String>) -> Result<Json<Image>, ApiError> {
    Ok(Json(find(&app, &id).await?.into()))
}

/// Read whole once, which verifies it, then streamed: a reader that stalls holds a chunk of it.
async fn content(
    State(context): State<Context>,
    Id(id): Id<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app = &context.app;
    let row = find(app, &id).await?;
    let charge = context.budget.open();
    charge.add(usize::try_from(row.bytes).unwrap_or(usize::MAX))?;
    let bytes = app.ingest.image_bytes(row.sha256).await?;
    let size = bytes.ok_or_else(|| unknown(&id))?.len();
    drop(charge);
    let download = Download {
        key: BlobKey::Image(row.sha256),
        size: size as u64,
        sha256: row.sha256.to_string(),
        headers: [
            (header::CONTENT_TYPE, format!("image/{}", row.format)),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ],
        request: &headers,
    };
    download.answer(&app.blobs, ()).await
}

/// Erases the bytes, the pairs and, by way of the trainer, the chains that hold it.
async fn remove(State(app): State<App>, Id(id): Id<String>) -> Result<StatusCode, ApiError> {
    let sha256 = id.parse::<Sha256>().map_err(|_| unknown(&id))?;
    match app.ingest.delete_image(sha256).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown(&id)),
    }
}

async fn find(app: &App, id: &str) -> Result<ImageRow, ApiError> {
    let sha256 = id.parse::<Sha256>().map_err(|_| unknown(id))?;
    app.db.image(sha256).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    let message = format!(
        "no image {} is stored; an id is the SHA-256 of the image's bytes",
        quoted(id)
    );
    ApiError::NotFound(Problem::new("unknown_image", message).at("id"))
}
