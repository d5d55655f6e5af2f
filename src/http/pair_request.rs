//! Posted pairs as JSON and forms write them, turned into uploads.

use axum::extract::Multipart;
use bytes::Bytes;
use serde::Deserialize;

use super::{
    error::{ApiError, Problem},
    input::ImageInput,
    json::Object,
    multipart::{next, unknown_part},
};
use crate::{
    ingest::{PairUpload, Upload},
    types::Sha256,
};

/// Most bytes of a group's name.
const MAX_GROUP: usize = 512;

/// The JSON body of `POST /v1/pairs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairsDocument {
    pub(super) pairs: Vec<Object<PairDocument>>,
}

/// One pair; also one line of a stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairDocument {
    anchor: Object<SideDocument>,
    positive: Option<Object<SideDocument>>,
    group: Option<String>,
}

/// Exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SideDocument {
    image: Option<ImageInput>,
    id: Option<String>,
}

impl PairDocument {
    /// `place`: where the pair stands in the request, such as `pairs[2].`; empty for a line of a stream.
    pub(super) fn upload(&self, max_bytes: usize, place: &str) -> Result<PairUpload, ApiError> {
        check_group(self.group.as_deref(), place)?;
        let anchor = self.anchor.0.upload(max_bytes, &format!("{place}anchor"))?;
        let positive = self.positive.as_ref();
        let positive = positive.map(|side| side.0.upload(max_bytes, &format!("{place}positive")));
        Ok(PairUpload {
            anchor,
            positive: positive.transpose()?,
            group: self.group.clone(),
        })
    }
}

impl SideDocument {
    fn upload(&self, max_bytes: usize, param: &str) -> Result<Upload, ApiError> {
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
                let message = "give either \"image\" or the \"id\" of a stored one";
                Err(ApiError::invalid("invalid_field", param, message))
            }
        }
    }
}

/// A form with the files `anchor` and `positive` and the text `group`.
pub(super) async fn from_form(
    mut form: Multipart,
    max_bytes: usize,
) -> Result<PairUpload, ApiError> {
    let (mut anchor, mut positive, mut group) = (None, None, None);
    while let Some(part) = next(&mut form, max_bytes).await? {
        let place = match part.name.as_str() {
            "anchor" => &mut anchor,
            "positive" => &mut positive,
            "group" => &mut group,
            other => return Err(unknown_part(other, "send anchor, positive and group")),
        };
        if place.replace(part.bytes).is_some() {
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
    let group = group.map(text).transpose()?;
    check_group(group.as_deref(), "")?;
    Ok(PairUpload {
        anchor: Upload::Bytes(anchor),
        positive: positive.map(Upload::Bytes),
        group,
    })
}

fn text(bytes: Bytes) -> Result<String, ApiError> {
    String::from_utf8(bytes.into())
        .map_err(|_| ApiError::invalid("invalid_field", "group", "group is not UTF-8 text"))
}

fn check_group(group: Option<&str>, place: &str) -> Result<(), ApiError> {
    match group {
        Some(group) if group.is_empty() || group.len() > MAX_GROUP => {
            let message = format!(
                "group has {} bytes: give 1 to {MAX_GROUP}, or leave it out",
                group.len()
            );
            Err(ApiError::invalid(
                "invalid_field",
                format!("{place}group"),
                message,
            ))
        }
        _ => Ok(()),
    }
}

/// How many pairs one request may carry.
pub(super) fn count(pairs: usize, most: usize) -> Result<(), ApiError> {
    if pairs == 0 {
        return Err(ApiError::invalid(
            "no_pairs",
            "pairs",
            "the request has no pair: send at least one",
        ));
    }
    if pairs > most {
        let message = format!(
            "the request has {pairs} pairs, more than server.max_pairs = {most}: send several requests, or application/x-ndjson"
        );
        return Err(ApiError::TooLarge(
            Problem::new("too_many_pairs", message).at("pairs"),
        ));
    }
    Ok(())
}
