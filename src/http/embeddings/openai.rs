//! The JSON of `POST /v1/embeddings`, as OpenAI's clients send and read it, with what Jina's, infinity's and LiteLLM's add.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{
    ObjectBuilder,
    schema::{Schema, SchemaType, Type},
};

use super::{
    format::{Format, Values},
    limits::Limits,
    options::{InputType, Layer, Options},
};
use crate::{
    http::{error::ApiError, input::Images, json, models::pinned_name},
    serve::{Embedded, quantize},
};

/// The JSON body. It repeats the options, since `#[serde(flatten)]` would accept unknown fields.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingsRequest {
    /// One image, or a list of at most `server.max_images`.
    input: Images,
    model: Option<String>,
    #[serde(default, deserialize_with = "json::optional_name")]
    encoding_format: Option<Format>,
    /// Jina's name of `encoding_format`.
    #[serde(default, deserialize_with = "json::optional_name")]
    embedding_type: Option<Format>,
    /// Keeps the first values of the embedding, to unit length again. At most the model's.
    #[serde(default, deserialize_with = "json::optional_whole")]
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::optional_name")]
    layer: Option<Layer>,
    #[serde(default, deserialize_with = "json::optional_name")]
    input_type: Option<InputType>,
    /// Embeddings always have unit length.
    #[schema(schema_with = true_or_null)]
    normalized: Option<bool>,
    /// infinity's clients name it.
    #[serde(default, rename = "modality", deserialize_with = "json::optional_name")]
    _modality: Option<Modality>,
    /// OpenAI's clients may send it; it is ignored.
    #[serde(default, rename = "user")]
    _user: Option<String>,
}

/// What is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Modality {
    Image,
}

impl EmbeddingsRequest {
    /// The image files, and the options completed by those of the query.
    pub(super) fn read(
        self,
        limits: &Limits,
        query: Options,
    ) -> Result<(Vec<Bytes>, Options), ApiError> {
        let inputs = self.input.0;
        limits.check_count(inputs.len())?;
        let images = inputs.iter().enumerate();
        let images =
            images.map(|(index, input)| input.bytes(limits.max_bytes, &format!("input[{index}]")));
        let images = images.collect::<Result<_, _>>()?;
        if self.normalized == Some(false) {
            let message = "embeddings always have unit length: leave normalized out, or ask for \"layer\": \"hidden\"";
            return Err(ApiError::invalid("invalid_field", "normalized", message));
        }
        let options = Options {
            model: self.model,
            encoding_format: self.encoding_format.or(self.embedding_type),
            dimensions: self.dimensions,
            layer: self.layer,
            input_type: self.input_type,
        };
        Ok((images, options.merge(query)?))
    }
}

/// The only values of `normalized`.
fn true_or_null() -> Schema {
    let types = SchemaType::from_iter([Type::Boolean, Type::Null]);
    let object = ObjectBuilder::new().schema_type(types);
    object.enum_values(Some([Some(true), None])).into()
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct EmbeddingsResponse {
    object: &'static str,
    model: String,
    data: Vec<EmbeddingItem>,
    /// Of `int8` and `uint8`: a value is about its number (for `uint8` less 128) times this.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
    usage: Usage,
}

#[derive(Serialize, utoipa::ToSchema)]
struct EmbeddingItem {
    object: &'static str,
    index: usize,
    embedding: Values,
}

/// OpenAI's clients require it. Images have no tokens, so the counts are 0.
#[derive(Default, Serialize, utoipa::ToSchema)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// The answer in JSON.
pub(super) fn respond(options: &Options, embedded: &Embedded) -> Response {
    let format = options.encoding_format.unwrap_or_default();
    let range = options.range(&embedded.model);
    let rows = embedded.rows.iter().enumerate();
    let data = rows.map(|(index, row)| EmbeddingItem {
        object: "embedding",
        index,
        embedding: format.json(options.values(row), range),
    });
    let response = EmbeddingsResponse {
        object: "list",
        model: pinned_name(embedded.model.id),
        data: data.collect(),
        scale: format.is_quantized().then(|| quantize::step(range)),
        usage: Usage::default(),
    };
    Json(response).into_response()
}
