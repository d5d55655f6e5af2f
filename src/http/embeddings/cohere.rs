//! The JSON of `POST /v2/embed`, as Cohere's clients send and read it.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    format::{Format, Values},
    limits::Limits,
    options::{InputType, Options},
};
use crate::{
    http::{error::ApiError, input::ImageInput, json, json::Object},
    serve::{Embedded, quantize},
};

/// The JSON body.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbedRequest {
    model: Option<String>,
    images: Option<Vec<ImageInput>>,
    /// Cohere's form for mixed content. Each has one image here.
    #[schema(value_type = Option<Vec<Input>>)]
    inputs: Option<Vec<Object<Input>>>,
    #[serde(default, deserialize_with = "json::optional_name")]
    input_type: Option<InputType>,
    embedding_types: Option<Vec<Format>>,
    #[serde(default, deserialize_with = "json::optional_whole")]
    #[schema(minimum = 1)]
    output_dimension: Option<usize>,
    /// Images are never cut.
    #[serde(default, rename = "truncate")]
    _truncate: Option<String>,
    /// Of texts.
    #[serde(
        default,
        rename = "max_tokens",
        deserialize_with = "json::optional_whole"
    )]
    _max_tokens: Option<u64>,
    /// Cohere's order among requests, 0 first. kith has `x-kith-priority`, and ignores this.
    #[serde(
        default,
        rename = "priority",
        deserialize_with = "json::optional_whole"
    )]
    _priority: Option<u64>,
    /// Some clients send an empty list.
    #[schema(value_type = Option<Vec<Object>>, max_items = 0)]
    texts: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbedInput)]
struct Input {
    #[schema(min_items = 1, max_items = 1)]
    content: Vec<ImageInput>,
}

/// A request, read.
pub(super) struct Embed {
    pub(super) images: Vec<Bytes>,
    pub(super) options: Options,
    /// Formats of the answer, at least one, each once.
    pub(super) formats: Vec<Format>,
}

impl EmbedRequest {
    pub(super) fn read(self, limits: &Limits) -> Result<Embed, ApiError> {
        if self.texts.is_some_and(|texts| !texts.is_empty()) {
            let message = "kith embeds images only: send them as \"images\"";
            return Err(ApiError::invalid("invalid_field", "texts", message));
        }
        let mut images = Vec::new();
        let listed = self.images.iter().flatten().enumerate();
        let listed = listed.map(|(index, image)| (format!("images[{index}]"), image));
        let inputs = self.inputs.iter().flatten().enumerate();
        let mut all: Vec<_> = listed.collect();
        for (index, Object(input)) in inputs {
            let [image] = &input.content[..] else {
                let message = "an input has one image here: send each image as an input of its own";
                let param = format!("inputs[{index}].content");
                return Err(ApiError::invalid("invalid_field", param, message));
            };
            all.push((format!("inputs[{index}].content[0]"), image));
        }
        limits.check_count(all.len())?;
        for (param, image) in all {
            images.push(image.bytes(limits.max_bytes, &param)?);
        }
        let mut formats = Vec::new();
        for format in self.embedding_types.unwrap_or_default() {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        if formats.is_empty() {
            formats.push(Format::Float);
        }
        let options = Options {
            model: self.model,
            dimensions: self.output_dimension,
            input_type: self.input_type,
            ..Options::default()
        };
        Ok(Embed {
            images,
            options,
            formats,
        })
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct EmbedResponse {
    id: Uuid,
    response_type: &'static str,
    /// The vectors of all images, by format.
    embeddings: BTreeMap<&'static str, Vec<Values>>,
    /// Of `int8` and `uint8`: a value is about its number (for `uint8` less 128) times this.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
    #[schema(value_type = Vec<String>, max_items = 0)]
    texts: [String; 0],
    meta: Meta,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ApiVersion {
    version: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
struct BilledUnits {
    images: usize,
}

impl Embed {
    /// The answer in JSON.
    pub(super) fn respond(&self, embedded: &Embedded) -> Response {
        let range = self.options.range(&embedded.model);
        let all = |format: &Format| {
            let rows = embedded.rows.iter();
            let vectors = rows.map(|row| format.json(self.options.values(row), range));
            (format.name(), vectors.collect())
        };
        let quantized = self.formats.iter().any(|format| format.is_quantized());
        let response = EmbedResponse {
            id: Uuid::now_v7(),
            response_type: "embeddings_by_type",
            embeddings: self.formats.iter().map(all).collect(),
            scale: quantized.then(|| quantize::step(range)),
            texts: [],
            meta: Meta {
                api_version: ApiVersion { version: "2" },
                billed_units: BilledUnits {
                    images: embedded.rows.len(),
                },
            },
        };
        Json(response).into_response()
    }
}
