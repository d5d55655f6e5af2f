//! Searches and their answers.

use bytes::Bytes;

use super::{SearchError, spaces::Coverage};
use crate::{
    serve::Priority,
    types::{CheckpointId, Sha256},
};

/// What is looked for.
pub enum Question {
    /// What is near to this image file.
    Image(Bytes),
    /// What is near to this stored image, itself left out.
    Stored(Sha256),
    /// What is near to this vector, of any length but 0.
    Vector(Vec<f32>),
}

/// A search.
pub struct Query {
    /// What is looked for.
    pub question: Question,
    /// Most images of the answer.
    pub k: usize,
    /// Only images of this group's pairs.
    pub group: Option<String>,
    /// The checkpoint that answers; `None`: the one whose vectors are complete, or for a vector the live one.
    pub checkpoint: Option<CheckpointId>,
    /// How soon an image of the query is embedded.
    pub priority: Option<Priority>,
}

/// A stored image that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: Sha256,
    /// Its cosine with the query, from -1 to 1.
    pub score: f32,
    /// The group of its first pair that has one.
    pub group: Option<String>,
}

/// What was found, wholly under one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The nearest first.
    pub found: Vec<Found>,
    /// The checkpoint that answered, and how much of what is stored it knows.
    pub coverage: Coverage,
    /// The live checkpoint, while it is not the one that answered.
    pub next: Option<Coverage>,
}

/// The vector of a query at unit length.
///
/// # Errors
/// [`SearchError::Vector`] unless it has `dim` finite values that are not all 0.
pub(super) fn unit_vector(vector: &[f32], dim: usize) -> Result<Vec<f32>, SearchError> {
    if vector.len() != dim {
        let (found, refused) = (vector.len(), SearchError::Vector);
        return Err(refused(format!(
            "the vector has {found} values and the checkpoint's embeddings have {dim}: send one of POST /v1/embeddings, without \"dimensions\""
        )));
    }
    // In f64 no finite f32 overflows.
    let square = |value: &f32| f64::from(*value).powi(2);
    let norm = vector.iter().map(square).sum::<f64>().sqrt();
    if !(norm.is_finite() && norm > 0.0) {
        let message = "the vector has no direction: its values must be finite and not all 0";
        return Err(SearchError::Vector(message.to_owned()));
    }
    let scaled = vector.iter().map(|value| (f64::from(*value) / norm) as f32);
    Ok(scaled.collect())
}
