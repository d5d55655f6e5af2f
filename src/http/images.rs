//! `/v1/images`: stores, lists, returns and erases images, which are identified by their content.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    context::Context,
    download::Download,
    error::{ApiError, Problem},
    extract::{Body, Id, Params},
    forms::OneFile,
    input::ImageInput,
    json::parse,
    media::MediaType,
    multipart::{self, Form, unknown_part},
    page::{Page, PageParams},
    text::quoted,
    to_the_end::to_the_end,
};
use crate::{app::App, blobs::BlobKey, config::Settings, db::ImageRow, types::Sha256};
use kith_mcmc::ImageKey;

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(post_image, list_images))
        .routes(routes!(get_image, delete_image))
        .routes(routes!(get_image_content))
        .routes(routes!(get_image_thumbnail))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ImageRequest {
    image: ImageInput,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ImageResponse {
    /// The SHA-256 of the bytes.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    bytes: u64,
    width: u32,
    height: u32,
    format: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Whether the stored bytes are missing or wrong.
    damaged: bool,
}

impl From<ImageRow> for ImageResponse {
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

/// Stores an image.
#[utoipa::path(post, path = "/v1/images", request_body(content((ImageRequest = "application/json"), (Vec<u8> = "image/*"), (Vec<u8> = "application/octet-stream"), (OneFile = "multipart/form-data"))), responses((status = 201, description = "It is stored.", body = ImageResponse), (status = 200, description = "It was stored before.", body = ImageResponse), (status = 400, description = "image_undecodable url_not_supported"), (status = 413, description = "image_too_large"), (status = 415, description = "unsupported_media_type"), (status = 507, description = "storage_full")))]
async fn post_image(
    State(app): State<App>,
    request: Request,
) -> Result<(StatusCode, Json<ImageResponse>), ApiError> {
    let bytes = read_image(&app.settings, request).await?;
    let (row, new) = app.ingest.add_image(bytes).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(row.into())))
}

async fn read_image(settings: &Settings, request: Request) -> Result<Bytes, ApiError> {
    const ACCEPTED: [MediaType; 3] = [MediaType::Image, MediaType::Multipart, MediaType::Json];
    let max_bytes = settings.limits.max_bytes;
    match MediaType::require(request.headers(), &ACCEPTED)? {
        MediaType::Multipart => read_form(Form::from_request(request, max_bytes).await?).await,
        MediaType::Json => {
            let Body(body) = Body::from_request(request, &()).await?;
            parse(body, move |document: ImageRequest| {
                document.image.bytes(max_bytes, "image")
            })
            .await
        }
        _ => Ok(Body::from_request(request, &()).await?.0),
    }
}

/// The one file of a form.
async fn read_form(mut form: Form) -> Result<Bytes, ApiError> {
    let part = form.next_part().await?;
    let part = part.ok_or_else(|| multipart::invalid("the form has no file: send one"))?;
    match form.next_part().await? {
        Some(second) => Err(unknown_part(&second.name, "send one file at a time")),
        None => Ok(part.bytes),
    }
}

/// A page of the stored images.
#[utoipa::path(get, path = "/v1/images", params(("limit" = Option<u32>, Query, description = "rows; 100 unless given", minimum = 1, maximum = 1000), ("after" = Option<String>, Query, description = "`next` of the previous page", pattern = "^([0-9]{1,9}|[1-3][0-9]{9})$"), ("damaged" = Option<bool>, Query, description = "those whose stored bytes are damaged (`true`) or intact (`false`)")), responses((status = 200, body = Page<ImageResponse>), (status = 400, description = "invalid_limit invalid_cursor")))]
async fn list_images(
    State(app): State<App>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<ImageResponse>>, ApiError> {
    if params.group.is_some() {
        return Err(ApiError::invalid(
            "invalid_parameter",
            "group",
            "images have no group: list pairs by group",
        ));
    }
    let (after, limit) = params.cursor()?;
    let rows = app
        .db
        .images_after(ImageKey(after), limit + 1, params.damaged)
        .await?;
    Ok(Json(Page::from_rows(
        rows,
        limit,
        |row| row.key.0,
        ImageResponse::from,
    )))
}

/// What is known about an image.
#[utoipa::path(get, path = "/v1/images/{id}", params(("id" = String, Path, description = "the SHA-256 of the image's bytes", pattern = "^[0-9a-f]{64}$")), responses((status = 200, body = ImageResponse), (status = 404, description = "unknown_id unknown_image")))]
async fn get_image(
    State(app): State<App>,
    Id(id): Id<String>,
) -> Result<Json<ImageResponse>, ApiError> {
    Ok(Json(find(&app, &id).await?.into()))
}

/// The bytes of an image, as they were posted.
///
/// Their hash is verified first.
#[utoipa::path(get, path = "/v1/images/{id}/content", params(("id" = String, Path, description = "the SHA-256 of the image's bytes", pattern = "^[0-9a-f]{64}$"), ("range" = Option<String>, Header, description = "the bytes wanted, such as `bytes=0-1023`; what is no single range asks for the whole"), ("if-range" = Option<String>, Header, description = "`range` counts only if this is the file's `etag`"), ("if-none-match" = Option<String>, Header, description = "304 if this is the file's `etag`")), responses((status = 200, description = "The whole file.", body = Vec<u8>, content_type = "image/*", headers(("etag" = String), ("accept-ranges" = String))), (status = 206, description = "A part of the file.", body = Vec<u8>, content_type = "image/*", headers(("etag" = String), ("content-range" = String))), (status = 304, description = "The client has this version."), (status = 416, description = "invalid_range"), (status = 404, description = "unknown_id unknown_image not_found"), (status = 409, description = "image_damaged")))]
async fn get_image_content(
    State(context): State<Context>,
    Id(id): Id<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app = &context.app;
    let row = find(app, &id).await?;
    let permit = context.budget.permit();
    permit.acquire(usize::try_from(row.bytes).unwrap_or(usize::MAX))?;
    let bytes = app.ingest.image_bytes(row.sha256).await?;
    let size = bytes.ok_or_else(|| unknown(&id))?.len();
    drop(permit);
    let download = Download {
        key: BlobKey::Image(row.sha256),
        size: size as u64,
        sha256: row.sha256.to_string(),
        headers: [
            (header::CONTENT_TYPE, format!("image/{}", row.format)),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ],
        request_headers: &headers,
    };
    download.respond(&app.blobs, ()).await
}

/// A small copy of an image, for people.
///
/// A JPEG whose longer edge has at most 160 pixels.
#[utoipa::path(get, path = "/v1/images/{id}/thumbnail", params(("id" = String, Path, description = "the SHA-256 of the image's bytes", pattern = "^[0-9a-f]{64}$")), responses((status = 200, body = Vec<u8>, content_type = "image/jpeg"), (status = 400, description = "image_undecodable"), (status = 404, description = "unknown_id unknown_image"), (status = 409, description = "image_damaged"), (status = 413, description = "image_too_large")))]
async fn get_image_thumbnail(
    State(app): State<App>,
    Id(id): Id<String>,
) -> Result<Response, ApiError> {
    let row = find(&app, &id).await?;
    let file = app.thumbnails.get(row.sha256).await?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], file).into_response())
}

/// Erases the bytes, the pairs and, through the trainer, the chains whose state is this image.
#[utoipa::path(delete, path = "/v1/images/{id}", params(("id" = String, Path, description = "the SHA-256 of the image's bytes", pattern = "^[0-9a-f]{64}$")), responses((status = 204, description = "It is erased."), (status = 404, description = "unknown_id unknown_image"), (status = 507, description = "storage_full")))]
async fn delete_image(State(app): State<App>, Id(id): Id<String>) -> Result<StatusCode, ApiError> {
    let row = find(&app, &id).await?;
    let erased = to_the_end(async move {
        let erased = app.ingest.delete_image(row.sha256).await;
        // Also where the bytes of one whose row is gone could not be removed: the next start does that.
        let now = app.db.image(row.sha256).await?;
        if now.is_none_or(|now| now.key != row.key) {
            app.search.forget_image(row.key).await;
            app.thumbnails.forget(row.sha256).await;
        }
        Ok(erased?)
    });
    if erased.await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&id))
    }
}

async fn find(app: &App, id: &str) -> Result<ImageRow, ApiError> {
    let sha256 = id.parse::<Sha256>().map_err(|_| unknown(id))?;
    app.db.image(sha256).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    let message = format!(
        "no image {} is stored: an id is the SHA-256 of the image's bytes",
        quoted(id)
    );
    ApiError::NotFound(Problem::new("unknown_image", message).with_param("id"))
}
