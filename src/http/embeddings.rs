//! `POST /v1/embeddings`: embeds images. All vectors of an answer come from one checkpoint, which the answer names.

use axum::{
    Json, Router,
    extract::{FromRequest, Request, State},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Params},
    input::{ImageInput, OneOrMany},
    json::{self, parse},
    media::MediaType,
    models::{self, pinned_name},
    multipart::{Form, unknown_part},
};
use crate::{
    app::App,
    config::Settings,
    serve::{Embedded, ModelInfo, Row},
};

pub(super) fn router() -> Router<Context> {
    Router::new().route("/v1/embeddings", post(create_embeddings))
}

/// The options of a request, in its query or its JSON body. `None`: not given, or null.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    model: Option<String>,
    #[serde(default, deserialize_with = "json::optional_name")]
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::optional_name")]
    layer: Option<Layer>,
}

/// The JSON body. It repeats the options, since `#[serde(flatten)]` would accept unknown fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingsRequest {
    input: OneOrMany<ImageInput>,
    model: Option<String>,
    #[serde(default, deserialize_with = "json::optional_name")]
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::optional_name")]
    layer: Option<Layer>,
    /// OpenAI's clients may send it; it is ignored.
    #[serde(default, rename = "user")]
    _user: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian f32.
    Base64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layer {
    /// The projection head's output, unit length.
    #[default]
    Embedding,
    /// The features below the projection head.
    Hidden,
}

#[derive(Serialize)]
struct EmbeddingsResponse {
    object: &'static str,
    model: String,
    data: Vec<EmbeddingItem>,
    usage: Usage,
}

#[derive(Serialize)]
struct EmbeddingItem {
    object: &'static str,
    index: usize,
    embedding: EmbeddingValues,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EmbeddingValues {
    Float(Vec<f32>),
    Base64(String),
}

/// OpenAI's clients require it. Images have no tokens, so the counts are 0.
#[derive(Default, Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

async fn create_embeddings(
    State(app): State<App>,
    Params(query): Params<Options>,
    request: Request,
) -> Result<Json<EmbeddingsResponse>, ApiError> {
    const ACCEPTED: [MediaType; 3] = [MediaType::Json, MediaType::Image, MediaType::Multipart];
    let (images, options) = match MediaType::require(request.headers(), &ACCEPTED)? {
        MediaType::Json => read_json(&app.settings, query, request).await?,
        MediaType::Multipart => (read_form(&app.settings, request).await?, query),
        _ => (vec![Body::from_request(request, &()).await?.0], query),
    };
    let model = options.model.as_deref().unwrap_or(models::LIVE);
    let which = models::resolve(&app, model).await?;
    let model = app.serving.model(which).await?;
    options.check(&model)?;
    let embedded = app.serving.embed(which, images).await?;
    // A promotion in between may have changed the number of dimensions.
    options.check(&embedded.model)?;
    Ok(Json(options.response(embedded)))
}

async fn read_json(
    settings: &Settings,
    query: Options,
    request: Request,
) -> Result<(Vec<Bytes>, Options), ApiError> {
    let Body(body) = Body::from_request(request, &()).await?;
    let (max_images, max_bytes) = (settings.server.max_images, settings.limits.max_bytes);
    parse(body, move |document: EmbeddingsRequest| {
        let inputs = document.input.0;
        check_count(inputs.len(), max_images)?;
        let images = inputs.iter().enumerate();
        let images =
            images.map(|(index, input)| input.bytes(max_bytes, &format!("input[{index}]")));
        let images = images.collect::<Result<_, _>>()?;
        let options = Options {
            model: given_once("model", document.model, query.model)?,
            encoding_format: given_once(
                "encoding_format",
                document.encoding_format,
                query.encoding_format,
            )?,
            dimensions: given_once("dimensions", document.dimensions, query.dimensions)?,
            layer: given_once("layer", document.layer, query.layer)?,
        };
        Ok((images, options))
    })
    .await
}

/// The value of an option, which may be in the body or in the query but not in both.
fn given_once<T>(name: &str, body: Option<T>, query: Option<T>) -> Result<Option<T>, ApiError> {
    if body.is_some() && query.is_some() {
        let message = "this option is in the body and in the query: send it once";
        return Err(ApiError::invalid("invalid_parameter", name, message));
    }
    Ok(body.or(query))
}

async fn read_form(settings: &Settings, request: Request) -> Result<Vec<Bytes>, ApiError> {
    let mut form = Form::from_request(request, settings.limits.max_bytes).await?;
    let mut images = Vec::new();
    while let Some(part) = form.next_part().await? {
        if !part.is_file {
            return Err(unknown_part(
                &part.name,
                "send files only, and options as query parameters",
            ));
        }
        images.push(part.bytes);
        check_count(images.len(), settings.server.max_images)?;
    }
    check_count(images.len(), settings.server.max_images)?;
    Ok(images)
}

/// Checks the number of images in a request: 1 to `max`.
fn check_count(images: usize, max: usize) -> Result<(), ApiError> {
    if images == 0 {
        return Err(ApiError::invalid(
            "no_images",
            "input",
            "the request has no image: send at least one",
        ));
    }
    if images > max {
        let message = format!(
            "the request has {images} images, more than server.max_images = {max}: send several requests"
        );
        return Err(ApiError::TooLarge(
            Problem::new("too_many_images", message).with_param("input"),
        ));
    }
    Ok(())
}

impl Options {
    fn check(&self, model: &ModelInfo) -> Result<(), ApiError> {
        let Some(dimensions) = self.dimensions else {
            return Ok(());
        };
        let refuse =
            |message: String| ApiError::invalid("invalid_dimensions", "dimensions", message);
        if self.layer == Some(Layer::Hidden) {
            return Err(refuse(
                "hidden features cannot be truncated: leave dimensions out".to_owned(),
            ));
        }
        if !(1..=model.dim).contains(&dimensions) {
            let dim = model.dim;
            return Err(refuse(format!(
                "dimensions is {dimensions}: send 1 to {dim} for this model"
            )));
        }
        Ok(())
    }

    fn response(&self, embedded: Embedded) -> EmbeddingsResponse {
        let rows = embedded.rows.into_iter().enumerate();
        let data = rows.map(|(index, row)| EmbeddingItem {
            object: "embedding",
            index,
            embedding: self.values(row),
        });
        EmbeddingsResponse {
            object: "list",
            model: pinned_name(embedded.model.id),
            data: data.collect(),
            usage: Usage::default(),
        }
    }

    fn values(&self, row: Row) -> EmbeddingValues {
        let values = match self.layer.unwrap_or_default() {
            Layer::Embedding => truncate(row.embedding, self.dimensions),
            Layer::Hidden => row.hidden,
        };
        match self.encoding_format.unwrap_or_default() {
            Encoding::Float => EmbeddingValues::Float(values),
            Encoding::Base64 => {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                EmbeddingValues::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

/// The first `dimensions` values, normalised to unit length again; unchanged if there are no more than that.
fn truncate(mut values: Vec<f32>, dimensions: Option<usize>) -> Vec<f32> {
    let Some(dimensions) = dimensions.filter(|keep| *keep < values.len()) else {
        return values;
    };
    values.truncate(dimensions);
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    // Values that are all zero cannot be normalised and stay zero.
    if norm > 0.0 {
        values.iter_mut().for_each(|value| *value /= norm);
    }
    values
}
