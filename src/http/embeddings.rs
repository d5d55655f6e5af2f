//! `POST /v1/embeddings`: images in, vectors out, all from one checkpoint that the answer names.

use axum::{
    Json, Router,
    extract::{FromRequest, Multipart, Request, State},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    error::{ApiError, Problem},
    extract::{Body, Media, Params, parse},
    input::{ImageInput, OneOrMany},
    json,
    models::{self, name},
    multipart::{next, unknown_part},
};
use crate::{
    app::App,
    config::Settings,
    serve::{Embedded, ModelInfo, Row},
};

pub(super) fn router() -> Router<Context> {
    Router::new().route("/v1/embeddings", post(embed))
}

/// The options, as JSON fields or query parameters; `None`: not given, or null.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    model: Option<String>,
    #[serde(default, deserialize_with = "json::name")]
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::name")]
    layer: Option<Layer>,
}

/// The JSON body. Written out rather than flattened, so that unknown fields are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingsRequest {
    input: OneOrMany<ImageInput>,
    model: Option<String>,
    #[serde(default, deserialize_with = "json::name")]
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::name")]
    layer: Option<Layer>,
    /// OpenAI's clients may send it; it changes nothing.
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
    /// The features below it.
    Hidden,
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    model: String,
    data: Vec<Item>,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

/// OpenAI's clients require it; images have no tokens.
#[derive(Default, Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

async fn embed(
    State(app): State<App>,
    Params(query): Params<Options>,
    request: Request,
) -> Result<Json<Answer>, ApiError> {
    const TAKEN: [Media; 3] = [Media::Json, Media::Image, Media::Multipart];
    let (images, options) = match Media::of(request.headers(), &TAKEN)? {
        Media::Json => from_json(&app.settings, query, request).await?,
        Media::Multipart => (files(&app.settings, request).await?, query),
        _ => (vec![Body::from_request(request, &()).await?.0], query),
    };
    let model = options.model.as_deref().unwrap_or(models::LIVE);
    let which = models::which(&app, model).await?;
    let model = app.serving.model(which).await?;
    options.check(&model)?;
    let embedded = app.serving.embed(which, images).await?;
    // A promotion in between may have brought another shape.
    options.check(&embedded.model)?;
    Ok(Json(options.answer(embedded)))
}

async fn from_json(
    settings: &Settings,
    query: Options,
    request: Request,
) -> Result<(Vec<Bytes>, Options), ApiError> {
    let Body(body) = Body::from_request(request, &()).await?;
    let (max_images, max_bytes) = (settings.server.max_images, settings.limits.max_bytes);
    parse(body, move |document: EmbeddingsRequest| {
        let inputs = document.input.0;
        count(inputs.len(), max_images)?;
        let images = inputs.iter().enumerate();
        let images =
            images.map(|(index, input)| input.bytes(max_bytes, &format!("input[{index}]")));
        let images = images.collect::<Result<_, _>>()?;
        let options = Options {
            model: once("model", document.model, query.model)?,
            encoding_format: once(
                "encoding_format",
                document.encoding_format,
                query.encoding_format,
            )?,
            dimensions: once("dimensions", document.dimensions, query.dimensions)?,
            layer: once("layer", document.layer, query.layer)?,
        };
        Ok((images, options))
    })
    .await
}

/// An option may stand in the body or in the query, not in both.
fn once<T>(name: &str, body: Option<T>, query: Option<T>) -> Result<Option<T>, ApiError> {
    if body.is_some() && query.is_some() {
        let message = "this option is in the body and in the query: send it once";
        return Err(ApiError::invalid("invalid_parameter", name, message));
    }
    Ok(body.or(query))
}

async fn files(settings: &Settings, request: Request) -> Result<Vec<Bytes>, ApiError> {
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|_| {
        let message = "the multipart form has no boundary: let your client set the content-type";
        ApiError::BadRequest(Problem::new("invalid_multipart", message))
    })?;
    let mut images = Vec::new();
    while let Some(part) = next(&mut form, settings.limits.max_bytes).await? {
        if !part.file {
            return Err(unknown_part(
                &part.name,
                "send files only, and options as query parameters",
            ));
        }
        images.push(part.bytes);
        count(images.len(), settings.server.max_images)?;
    }
    count(images.len(), settings.server.max_images)?;
    Ok(images)
}

fn count(images: usize, most: usize) -> Result<(), ApiError> {
    if images == 0 {
        return Err(ApiError::invalid(
            "no_images",
            "input",
            "the request has no image: send at least one",
        ));
    }
    if images > most {
        let message = format!(
            "the request has {images} images, more than server.max_images = {most}: send several requests"
        );
        return Err(ApiError::TooLarge(
            Problem::new("too_many_images", message).at("input"),
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
                "hidden features are not ordered, so they cannot be cut: leave dimensions out"
                    .to_owned(),
            ));
        }
        if !(1..=model.dim).contains(&dimensions) {
            let dim = model.dim;
            return Err(refuse(format!(
                "dimensions is {dimensions}; this model gives from 1 to {dim}"
            )));
        }
        Ok(())
    }

    fn answer(&self, embedded: Embedded) -> Answer {
        let rows = embedded.rows.into_iter().enumerate();
        let data = rows.map(|(index, row)| Item {
            object: "embedding",
            index,
            embedding: self.vector(row),
        });
        Answer {
            object: "list",
            model: name(embedded.model.id),
            data: data.collect(),
            usage: Usage::default(),
        }
    }

    fn vector(&self, row: Row) -> Vector {
        let values = match self.layer.unwrap_or_default() {
            Layer::Embedding => truncate(row.embedding, self.dimensions),
            Layer::Hidden => row.hidden,
        };
        match self.encoding_format.unwrap_or_default() {
            Encoding::Float => Vector::Float(values),
            Encoding::Base64 => {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

/// The first `dimensions` values, back at unit length. All of them: unchanged.
fn truncate(mut values: Vec<f32>, dimensions: Option<usize>) -> Vec<f32> {
    let Some(dimensions) = dimensions.filter(|keep| *keep < values.len()) else {
        return values;
    };
    values.truncate(dimensions);
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    // A vector whose first values are all zero has no direction there; zeros say so.
    if norm > 0.0 {
        values.iter_mut().for_each(|value| *value /= norm);
    }
    values
}
