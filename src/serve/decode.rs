//! Image files into network input, on a pool of its own: a bound on the memory that decoding may take at once.
//! Must never know: what becomes of the pixels.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::pixels::{self, Limits, PixelError};

/// Decodes and fits one image to `[side, side, 3]`. A decoder that panics on a hostile file counts as undecodable.
pub(super) fn decode(bytes: &Bytes, limits: &Limits, side: usize) -> Result<Vec<f32>, PixelError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pixels::decode(bytes, limits).map(|picture| pixels::fit(&picture, side))
    }));
    outcome.unwrap_or_else(|_| {
        tracing::error!(bytes = bytes.len(), "the decoder panicked on an image");
        Err(PixelError::Undecodable(
            "the image cannot be decoded: send it in another format".to_owned(),
        ))
    })
}
