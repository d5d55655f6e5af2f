//! Posted pairs, as JSON and as forms, read into uploads.

use bytes::Bytes;
use serde::Deserialize;

use super::{
    error::{ApiError, Problem},
    input::ImageInput,
    json::Object,
    multipart::{Form, unknown_part},
};
use crate::{
    ingest::{PairUpload, Upload},
    types::Sha256,
};
use kith_mcmc::PairWeight;

/// Most characters of a group's name.
const MAX_GROUP: usize = 512;

/// The JSON body of `POST /v1/pairs`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PairsRequest {
    /// At most `server.max_pairs`.
    #[schema(value_type = Vec<PairRequest>, min_items = 1)]
    pub(super) pairs: Vec<Object<PairRequest>>,
}

/// One pair of a JSON body, or one line of a stream.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PairRequest {
    #[schema(value_type = SideRequest)]
    anchor: Object<SideRequest>,
    /// Without it two views of the anchor are the pair.
    #[schema(value_type = Option<SideRequest>)]
    positive: Option<Object<SideRequest>>,
    /// Images of one group are never each other's negatives. At most 512 characters.
    #[schema(min_length = 1, max_length = 512)]
    group: Option<String>,
    /// How much the pair counts in the loss, relative to the others; 1 unless given.
    #[schema(minimum = 0.001, maximum = 1000)]
    weight: Option<f64>,
}

/// One side of a pair. Exactly one of the fields is given.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SideRequest {
    image: Option<ImageInput>,
    /// The SHA-256 of a stored image.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: Option<String>,
}

impl PairRequest {
    /// Decodes the images. `path`: of the pair in the request, such as `pairs[2].`; empty for a line of a stream.
    pub(super) fn to_upload(&self, max_bytes: usize, path: &str) -> Result<PairUpload, ApiError> {
        check_group(self.group.as_deref(), path)?;
        let anchor = self
            .anchor
            .0
            .to_upload(max_bytes, &format!("{path}anchor"))?;
        let positive = self.positive.as_ref();
        let positive = positive.map(|side| side.0.to_upload(max_bytes, &format!("{path}positive")));
        Ok(PairUpload {
            anchor,
            positive: positive.transpose()?,
            group: self.group.clone(),
            weight: self
                .weight
                .map(|weight| pair_weight(weight, path))
                .transpose()?,
        })
    }
}

impl SideRequest {
    fn to_upload(&self, max_bytes: usize, param: &str) -> Result<Upload, ApiError> {
        match (&self.image, &self.id) {
            (Some(image), None) => {
                let bytes = image.bytes(max_bytes, &format!("{param}.image"))?;
                Ok(Upload::Bytes(bytes))
            }
            (None, Some(id)) => {
                let id = id.parse::<Sha256>();
                id.map(Upload::Id).map_err(|error| {
                    ApiError::invalid("invalid_id", format!("{param}.id"), error.to_string())
                })
            }
            _ => {
                let message = "send either \"image\" or the \"id\" of a stored image";
                Err(ApiError::invalid("invalid_field", param, message))
            }
        }
    }
}

/// Reads a form with the files `anchor` and `positive` and the texts `group` and `weight`.
pub(super) async fn read_form(mut form: Form) -> Result<PairUpload, ApiError> {
    let (mut anchor, mut positive, mut group, mut weight) = (None, None, None, None);
    while let Some(part) = form.next_part().await? {
        let slot = match part.name.as_str() {
            "anchor" => &mut anchor,
            "positive" => &mut positive,
            "group" => &mut group,
            "weight" => &mut weight,
            other => {
                let remedy = "send anchor, positive, group and weight";
                return Err(unknown_part(other, remedy));
            }
        };
        if slot.replace(part.bytes).is_some() {
            let message = "the form has this part twice: send one pair a form";
            return Err(ApiError::invalid("invalid_multipart", part.name, message));
        }
    }
    let anchor = anchor.ok_or_else(|| {
        ApiError::invalid(
            "missing_field",
            "anchor",
            "the form has no anchor: send its file",
        )
    })?;
    let group = group.map(group_name).transpose()?;
    check_group(group.as_deref(), "")?;
    Ok(PairUpload {
        anchor: Upload::Bytes(anchor),
        positive: positive.map(Upload::Bytes),
        group,
        weight: weight.map(weight_of_text).transpose()?,
    })
}

fn group_name(bytes: Bytes) -> Result<String, ApiError> {
    String::from_utf8(bytes.into())
        .map_err(|_| ApiError::invalid("invalid_field", "group", "group is not UTF-8: send text"))
}

fn weight_of_text(bytes: Bytes) -> Result<PairWeight, ApiError> {
    let text = String::from_utf8_lossy(&bytes);
    // What is no number is out of range, and the message says what to send.
    pair_weight(text.trim().parse().unwrap_or(f64::NAN), "")
}

fn pair_weight(weight: f64, path: &str) -> Result<PairWeight, ApiError> {
    PairWeight::new(weight).ok_or_else(|| {
        let message = format!(
            "weight is not a number from {} to {}: send one, or leave it out for 1",
            PairWeight::MIN.value(),
            PairWeight::MAX.value()
        );
        ApiError::invalid("invalid_field", format!("{path}weight"), message)
    })
}

fn check_group(group: Option<&str>, path: &str) -> Result<(), ApiError> {
    match group {
        Some(group) if !(1..=MAX_GROUP).contains(&group.chars().count()) => {
            let message = format!(
                "group has {} characters: send 1 to {MAX_GROUP}, or leave it out",
                group.chars().count()
            );
            Err(ApiError::invalid(
                "invalid_field",
                format!("{path}group"),
                message,
            ))
        }
        _ => Ok(()),
    }
}

/// Checks the number of pairs in a request: 1 to `max`.
pub(super) fn check_count(pairs: usize, max: usize) -> Result<(), ApiError> {
    if pairs == 0 {
        return Err(ApiError::invalid(
            "no_pairs",
            "pairs",
            "the request has no pair: send at least one",
        ));
    }
    if pairs > max {
        let message = format!(
            "the request has {pairs} pairs, more than server.max_pairs = {max}: send several requests, or application/x-ndjson"
        );
        return Err(ApiError::TooLarge(
            Problem::new("too_many_pairs", message).with_param("pairs"),
        ));
    }
    Ok(())
}
