//! A stored pair as JSON.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::error::{ApiError, ErrorDocument};
use crate::db::{PairRow, Split};

/// One pair in an answer.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct PairResponse {
    id: Uuid,
    anchor: String,
    /// The anchor's id where no positive was posted: the anchor's own two views are the pair.
    positive: String,
    group: Option<String>,
    /// How much it counts in the loss, relative to the other pairs.
    weight: f64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Never trained on.
    holdout: bool,
    split: Split,
    /// Whether the pair was stored before. In the answer to a post only.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

/// One line of the answer to a stream of pairs.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum PairLine {
    Pair(PairResponse),
    Error(ErrorDocument),
}

impl From<Result<PairResponse, ApiError>> for PairLine {
    fn from(result: Result<PairResponse, ApiError>) -> Self {
        match result {
            Ok(pair) => Self::Pair(pair),
            Err(error) => Self::Error(error.document()),
        }
    }
}

impl From<PairRow> for PairResponse {
    fn from(row: PairRow) -> Self {
        Self {
            id: row.id,
            anchor: row.anchor.to_string(),
            positive: row.positive.to_string(),
            group: row.group,
            weight: row.weight.value(),
            created_at: row.created_at,
            holdout: row.split == Split::Holdout,
            split: row.split,
            duplicate: None,
        }
    }
}

impl PairResponse {
    /// A pair that was just posted, and whether it was stored before.
    pub(super) fn from_post((row, duplicate): (PairRow, bool)) -> Self {
        Self {
            duplicate: Some(duplicate),
            ..row.into()
        }
    }
}
