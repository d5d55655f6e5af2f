//! The options of an embedding request, which JSON bodies and queries share.

use serde::Deserialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        schema::{Schema, Type},
    },
};

use super::format::Format;
use crate::{
    http::{error::ApiError, extract::optional_whole_parameter, json},
    serve::{ModelInfo, Row, quantize},
};
use kith_mcmc::Side;

/// What a caller may choose. `None`: not given, or null.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    pub(super) model: Option<String>,
    #[serde(default, deserialize_with = "json::optional_name")]
    pub(super) encoding_format: Option<Format>,
    #[serde(default, deserialize_with = "optional_whole_parameter")]
    #[param(minimum = 1)]
    pub(super) dimensions: Option<usize>,
    #[serde(default, deserialize_with = "json::optional_name")]
    pub(super) layer: Option<Layer>,
    #[serde(default, deserialize_with = "json::optional_name")]
    pub(super) input_type: Option<InputType>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Layer {
    /// The projection head's output, unit length.
    #[default]
    Embedding,
    /// The features below the projection head.
    Hidden,
}

/// The side of a pair that an image is on, under the names of several interfaces. It has an effect where each side has an encoder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputType {
    /// What is searched with.
    #[serde(alias = "query", alias = "search_query", alias = "image_query")]
    Anchor,
    /// What is found.
    #[serde(alias = "document", alias = "search_document")]
    Positive,
    /// Cohere's name for any image.
    Image,
    /// A feature for another model.
    #[serde(alias = "clustering")]
    Classification,
}

/// Derived schemas leave aliases out.
impl PartialSchema for InputType {
    fn schema() -> RefOr<Schema> {
        let names = [
            "anchor",
            "query",
            "search_query",
            "image_query",
            "positive",
            "document",
            "search_document",
            "image",
            "classification",
            "clustering",
        ];
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.enum_values(Some(names)).into()
    }
}

impl ToSchema for InputType {}

impl Options {
    /// The options of a body, completed by those of the query. One that is in both is refused.
    pub(super) fn merge(self, query: Self) -> Result<Self, ApiError> {
        Ok(Self {
            model: given_once("model", self.model, query.model)?,
            encoding_format: given_once(
                "encoding_format",
                self.encoding_format,
                query.encoding_format,
            )?,
            dimensions: given_once("dimensions", self.dimensions, query.dimensions)?,
            layer: given_once("layer", self.layer, query.layer)?,
            input_type: given_once("input_type", self.input_type, query.input_type)?,
        })
    }

    /// The side whose encoder of `model` embeds the images. Where both sides share one, they need not say.
    pub(super) fn side(&self, model: &ModelInfo) -> Result<Side, ApiError> {
        let remedy = "this model has an encoder for each side of pairs: send \"anchor\" for what is searched with, or \"positive\" for what is \
                      found";
        let refuse = |code, what: &str| {
            let message = format!("input_type {what}, and {remedy}");
            Err(ApiError::invalid(code, "input_type", message))
        };
        match self.input_type {
            Some(InputType::Anchor) => Ok(Side::Anchor),
            Some(InputType::Positive) => Ok(Side::Positive),
            _ if model.towers == 1 => Ok(Side::Anchor),
            None => refuse("missing_field", "is missing"),
            Some(InputType::Image | InputType::Classification) => {
                refuse("invalid_field", "names no side")
            }
        }
    }

    /// Whether `model` can answer with them in each of `formats`.
    pub(super) fn check(&self, model: &ModelInfo, formats: &[Format]) -> Result<(), ApiError> {
        let hidden = self.layer == Some(Layer::Hidden);
        if let Some(format) = formats.iter().find(|format| format.is_quantized())
            && hidden
        {
            let message = format!(
                "hidden features have no calibrated range, so they cannot be sent as {}: choose float or base64",
                format.name()
            );
            return Err(ApiError::invalid(
                "invalid_field",
                "encoding_format",
                message,
            ));
        }
        let Some(dimensions) = self.dimensions else {
            return Ok(());
        };
        let refuse =
            |message: String| ApiError::invalid("invalid_dimensions", "dimensions", message);
        if hidden {
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

    /// The values asked for, of one image.
    pub(super) fn values(&self, row: &Row) -> Vec<f32> {
        match self.layer.unwrap_or_default() {
            Layer::Embedding => truncate(&row.embedding, self.dimensions),
            Layer::Hidden => row.hidden.clone(),
        }
    }

    /// Largest magnitude that 8 bits express in the values asked for.
    pub(super) fn range(&self, model: &ModelInfo) -> f32 {
        let kept = self.dimensions.unwrap_or(model.dim);
        quantize::range_of_first(model.range, model.dim, kept)
    }
}

/// The value of an option, which may be in the body or in the query but not in both.
fn given_once<T>(name: &str, body: Option<T>, query: Option<T>) -> Result<Option<T>, ApiError> {
    if body.is_some() && query.is_some() {
        let message = "this option is in the body and in the query: send it once";
        return Err(ApiError::invalid("invalid_parameter", name, message));
    }
    Ok(body.or(query))
}

/// The first `dimensions` values, normalised to unit length again; all of them if there are no more than that.
fn truncate(values: &[f32], dimensions: Option<usize>) -> Vec<f32> {
    let Some(first) = dimensions.and_then(|keep| values.get(..keep)) else {
        return values.to_vec();
    };
    if first.len() == values.len() {
        return values.to_vec();
    }
    let norm = first.iter().map(|value| value * value).sum::<f32>().sqrt();
    // Values that are all zero cannot be normalised and stay zero.
    let norm = if norm > 0.0 { norm } else { 1.0 };
    first.iter().map(|value| value / norm).collect()
}
