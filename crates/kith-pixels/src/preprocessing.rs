//! What is done to an image before an encoder sees it, as data: a checkpoint says it, so that its embeddings can be computed elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::resize::{DEVIATION, MEAN};

/// From an image to an encoder's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square input in pixels.
    pub side: usize,
    /// The part of the image that is used: `centre_square`, the largest square in the middle.
    pub crop: String,
    /// How the part is scaled: `antialiased_bilinear`, a triangle filter whose support grows with the factor.
    pub filter: String,
    /// Subtracted from red, green and blue, which run from 0 to 1.
    pub mean: [f32; 3],
    /// What the differences are divided by.
    pub deviation: [f32; 3],
    /// What lies under transparent pixels: `white`.
    pub background: String,
}

impl Preprocessing {
    /// What [`super::fit`] does, after decoding, for inputs of `side`.
    pub fn new(side: usize) -> Self {
        Self {
            side,
            crop: "centre_square".to_owned(),
            filter: "antialiased_bilinear".to_owned(),
            mean: MEAN,
            deviation: DEVIATION,
            background: "white".to_owned(),
        }
    }
}

/// All of it on one line, as parameters of a structured field of HTTP (RFC 9651) have it.
impl fmt::Display for Preprocessing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            side,
            crop,
            filter,
            mean: [red, green, blue],
            deviation,
            background,
        } = self;
        write!(out, "side={side};crop={crop};filter={filter}")?;
        write!(out, ";mean=\"{red} {green} {blue}\"")?;
        let [red, green, blue] = deviation;
        write!(out, ";deviation=\"{red} {green} {blue}\"")?;
        write!(out, ";background={background}")
    }
}
