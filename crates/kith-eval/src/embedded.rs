//! The embeddings of labelled image files.

use std::collections::HashMap;

use bytes::Bytes;
use rayon::prelude::*;

use kith_nn::{Encoder, NnError};
use kith_pixels::Limits;

/// Embeddings (`[rows, dim]`) with one label a row.
#[derive(Default)]
pub(crate) struct Embedded {
    pub(crate) vectors: Vec<f32>,
    pub(crate) labels: Vec<u64>,
}

impl Embedded {
    /// Appends the embeddings of `images`. Those that cannot be decoded are left out.
    pub(crate) fn encode(
        &mut self,
        images: &[Bytes],
        labels: &[u64],
        encoder: &Encoder,
        limits: &Limits,
    ) -> Result<(), NnError> {
        let side = encoder.config().side;
        let views: Vec<_> = images
            .par_iter()
            .map(|bytes| {
                kith_pixels::decode_with(bytes, limits, |image| kith_pixels::fit(&image, side))
            })
            .collect();
        let mut pixels = Vec::new();
        for (view, label) in views.into_iter().zip(labels) {
            match view {
                Ok(view) => {
                    pixels.extend(view);
                    self.labels.push(*label);
                }
                Err(error) => tracing::warn!(%error, "an evaluation image is left out"),
            }
        }
        if !pixels.is_empty() {
            self.vectors
                .extend(encoder.forward(&pixels)?.embedding.data);
        }
        Ok(())
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.vectors.iter().all(|x| x.is_finite())
    }

    pub(crate) fn rows_by_label(&self) -> HashMap<u64, Vec<usize>> {
        let mut rows: HashMap<u64, Vec<usize>> = HashMap::new();
        for (row, label) in self.labels.iter().enumerate() {
            rows.entry(*label).or_default().push(row);
        }
        rows
    }
}
