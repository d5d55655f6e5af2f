//! `POST /v1/embeddings` and `POST /v2/embed`: embeds images. All vectors of an answer come from one checkpoint, which the answer names.

mod cohere;
mod format;
mod limits;
mod openai;
mod options;

use axum::{
    extract::{FromRequest, Request, State},
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    cohere::{EmbedRequest, EmbedResponse},
    format::Format,
    limits::Limits,
    openai::{EmbeddingsRequest, EmbeddingsResponse},
    options::Options,
};
use super::{
    context::Context,
    error::ApiError,
    extract::{Body, Params},
    forms::ImageFiles,
    json::parse,
    load::priority,
    media::MediaType,
    models::{self, pinned_name},
    multipart::{Form, unknown_part},
};
use crate::{
    app::App,
    checkpoint::preprocessing_hash,
    config::Settings,
    keys::Caller,
    serve::{Embedded, ModelInfo, Priority, Which},
};
use kith_pixels::Preprocessing;

/// The checkpoint that an answer's vectors come from, as `model` names it.
const MODEL: HeaderName = HeaderName::from_static("x-kith-model");
/// What was done to the images before the network saw them.
const PREPROCESSING: HeaderName = HeaderName::from_static("x-kith-preprocessing");
/// Values in each vector of a raw answer.
const DIMENSIONS: HeaderName = HeaderName::from_static("x-kith-dimensions");
/// The media type of raw answers.
const RAW: &str = "application/octet-stream";

pub(super) fn router() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(create_embeddings))
        .routes(routes!(embed_as_cohere))
}

/// Embeds images, in OpenAI's shape.
///
/// All vectors of an answer come from one checkpoint, which `model` names. An option may be in the JSON body or in the query, not in both.
#[utoipa::path(post, path = "/v1/embeddings", params(Options, ("x-kith-priority" = Option<String>, Header, pattern = "^(interactive|bulk)$", description = "which requests go first; by the number of images unless given")), request_body(content((EmbeddingsRequest = "application/json"), (Vec<u8> = "image/*"), (Vec<u8> = "application/octet-stream"), (ImageFiles = "multipart/form-data"))), responses((status = 200, description = "The vectors; as raw bytes for a client that accepts those only.", content((EmbeddingsResponse = "application/json"), (Vec<u8> = "application/octet-stream")), headers(("x-kith-model" = String, description = "the checkpoint of all vectors, as `kith@ID`"), ("x-kith-preprocessing" = String, description = "what was done to the images: the hash that `GET /v1/models` has, and its parts as parameters"), ("x-kith-dimensions" = Option<usize>, description = "of raw bytes: values in each vector"))), (status = 400, description = "invalid_dimensions no_images image_undecodable url_not_supported"), (status = 415, description = "unsupported_media_type"), (status = 404, description = "unknown_model unknown_checkpoint"), (status = 409, description = "checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 413, description = "image_too_large too_many_images"), (status = 500, description = "checkpoint_not_finite"), (status = 503, description = "not_ready")))]
async fn create_embeddings(
    State(app): State<App>,
    Params(query): Params<Options>,
    request: Request,
) -> Result<Response, ApiError> {
    const ACCEPTED: [MediaType; 3] = [MediaType::Json, MediaType::Image, MediaType::Multipart];
    let raw = accepts_raw(request.headers());
    let asker = Asker::new(request.headers(), request.extensions())?;
    let (images, options) = match MediaType::require(request.headers(), &ACCEPTED)? {
        MediaType::Json => read_json(&app.settings, query, request).await?,
        MediaType::Multipart => (read_form(&app.settings, request).await?, query),
        _ => (vec![Body::from_request(request, &()).await?.0], query),
    };
    let format = options.encoding_format.unwrap_or_default();
    let embedded = embed(&app, &options, &[format], images, asker).await?;
    let response = if raw {
        respond_raw(&options, format, &embedded)
    } else {
        openai::respond(&options, &embedded)
    };
    Ok(with_model(response, &embedded))
}

/// Embeds images, in the shape of version 2 of Cohere's interface.
#[utoipa::path(post, path = "/v2/embed", params(("x-kith-priority" = Option<String>, Header, pattern = "^(interactive|bulk)$", description = "which requests go first; by the number of images unless given")), request_body = EmbedRequest, responses((status = 200, body = EmbedResponse, headers(("x-kith-model" = String, description = "the checkpoint of all vectors, as `kith@ID`"), ("x-kith-preprocessing" = String, description = "what was done to the images: the hash that `GET /v1/models` has, and its parts as parameters"))), (status = 400, description = "invalid_dimensions no_images image_undecodable url_not_supported"), (status = 404, description = "unknown_model unknown_checkpoint"), (status = 409, description = "checkpoint_damaged checkpoint_not_finite checkpoint_preprocessing"), (status = 413, description = "image_too_large too_many_images"), (status = 500, description = "checkpoint_not_finite"), (status = 503, description = "not_ready")))]
async fn embed_as_cohere(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let asker = Asker::new(&headers, &extensions)?;
    let limits = Limits::from(&*app.settings);
    let mut request = parse(body, move |document: EmbedRequest| document.read(&limits)).await?;
    let images = std::mem::take(&mut request.images);
    let embedded = embed(&app, &request.options, &request.formats, images, asker).await?;
    Ok(with_model(request.respond(&embedded), &embedded))
}

async fn embed(
    app: &App,
    options: &Options,
    formats: &[Format],
    images: Vec<Bytes>,
    asker: Asker,
) -> Result<Embedded, ApiError> {
    let name = options.model.as_deref().unwrap_or(models::LIVE);
    let (which, model) = choose(app, name, asker.key).await?;
    options.check(&model, formats)?;
    let which = (which, options.side(&model)?);
    // Several images of one request say little more than one: shadows are for what callers send, not for bulk.
    let only = (images.len() == 1).then(|| images[0].clone());
    let embedded = app.serving.embed(which, images, asker.priority).await?;
    // A promotion in between may have changed the number of dimensions.
    options.check(&embedded.model, formats)?;
    if let Some(image) = only {
        app.serving.shadow(name, &image, &embedded);
    }
    Ok(embedded)
}

/// The checkpoint that answers under a name: the candidate that is tried on this caller, unless it cannot be loaded, or the name's own.
async fn choose(app: &App, name: &str, key: Option<Uuid>) -> Result<(Which, ModelInfo), ApiError> {
    let own = models::resolve(app, name).await?;
    if let Some(candidate) = app.serving.canary(name, key).map(Which::Pinned)
        && let Ok(model) = app.serving.model(candidate).await
    {
        return Ok((candidate, model));
    }
    Ok((own, app.serving.model(own).await?))
}

/// What a request says about its sender.
#[derive(Clone, Copy)]
struct Asker {
    priority: Option<Priority>,
    /// Id of the API key.
    key: Option<Uuid>,
}

impl Asker {
    fn new(headers: &HeaderMap, extensions: &Extensions) -> Result<Self, ApiError> {
        Ok(Self {
            priority: priority(headers)?,
            key: extensions.get().map(Caller::id),
        })
    }
}

async fn read_json(
    settings: &Settings,
    query: Options,
    request: Request,
) -> Result<(Vec<Bytes>, Options), ApiError> {
    let Body(body) = Body::from_request(request, &()).await?;
    let limits = Limits::from(settings);
    parse(body, move |document: EmbeddingsRequest| {
        document.read(&limits, query)
    })
    .await
}

async fn read_form(settings: &Settings, request: Request) -> Result<Vec<Bytes>, ApiError> {
    let limits = Limits::from(settings);
    let mut form = Form::from_request(request, limits.max_bytes).await?;
    let mut images = Vec::new();
    while let Some(part) = form.next_part().await? {
        if !part.is_file {
            return Err(unknown_part(
                &part.name,
                "send files only, and options as query parameters",
            ));
        }
        images.push(part.bytes);
        limits.check_count(images.len())?;
    }
    limits.check_count(images.len())?;
    Ok(images)
}

/// Whether the client wants raw bytes: it names their media type, without preferring JSON.
fn accepts_raw(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut types = accepted
        .flat_map(|value| value.split(','))
        .filter_map(|part| part.split(';').next())
        .map(str::trim);
    // The first that can be answered counts.
    types.find(|name| [RAW, "application/json", "*/*", "application/*"].contains(name)) == Some(RAW)
}

/// The vectors one after another, without any framing. The headers say how many values each has.
fn respond_raw(options: &Options, format: Format, embedded: &Embedded) -> Response {
    let range = options.range(&embedded.model);
    let mut bytes = Vec::new();
    let mut dimensions = 0;
    for row in &embedded.rows {
        let values = options.values(row);
        dimensions = values.len();
        bytes.extend(format.bytes(&values, range));
    }
    let mut response = ([(CONTENT_TYPE, RAW)], bytes).into_response();
    response
        .headers_mut()
        .insert(DIMENSIONS, HeaderValue::from(dimensions));
    response
}

/// Says where the vectors come from: the checkpoint, and what was done to the images.
fn with_model(mut response: Response, embedded: &Embedded) -> Response {
    let ModelInfo { id, side, .. } = embedded.model;
    // No checkpoint is loaded whose images would be prepared otherwise.
    let preprocessing = Preprocessing::new(side);
    let hash = preprocessing_hash(&preprocessing);
    let preprocessing = format!("\"{hash}\";{preprocessing}");
    for (header, value) in [(MODEL, pinned_name(id)), (PREPROCESSING, preprocessing)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header, value);
        }
    }
    response
}
