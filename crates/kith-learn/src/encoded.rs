//! Embeddings with the tapes of their forward passes, from which the gradient of the weights is computed.

use std::collections::BTreeMap;

use super::views::View;
use kith_mcmc::ImageKey;
use kith_nn::{Encoder, Gradients, NnError, Tape, UploadedPixels};

/// Rows of embeddings: those of the batch, if any, then those of images outside of it.
#[derive(Default)]
pub(super) struct Encoded {
    /// Number of values in a row.
    pub(super) dim: usize,
    /// `[rows, dim]`.
    pub(super) embedding: Vec<f32>,
    /// The row of each image outside the batch.
    pub(super) carried: BTreeMap<ImageKey, usize>,
    tapes: Vec<Tape>,
}

impl Encoded {
    /// Encodes `pixels`, `[images, side, side, 3]`, and after them `views`, in one pass; `uploaded` are the same, if they are on the device. Does
    /// nothing if both are empty.
    pub(super) fn push(
        &mut self,
        encoder: &Encoder,
        (pixels, views): (&[f32], &[View]),
        uploaded: Option<UploadedPixels>,
    ) -> Result<(), NnError> {
        let whole = Some(pixels).filter(|pixels| !pixels.is_empty());
        let parts: Vec<&[f32]> = whole
            .into_iter()
            .chain(views.iter().map(|(_, view)| &view[..]))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        let tape = encoder.forward_train_uploaded(&parts, uploaded)?;
        self.dim = tape.embedding().dim;
        self.embedding.extend_from_slice(&tape.embedding().data);
        self.tapes.push(tape);
        let first = self.rows() - views.len();
        self.carried.extend(
            views
                .iter()
                .zip(first..)
                .map(|((image, _), row)| (*image, row)),
        );
        Ok(())
    }

    /// Encodes `views` without recording a tape.
    pub(super) fn without_tape(encoder: &Encoder, views: &[View]) -> Result<Self, NnError> {
        if views.is_empty() {
            return Ok(Self::default());
        }
        let parts: Vec<&[f32]> = views.iter().map(|(_, view)| &view[..]).collect();
        let vectors = encoder.forward_all(&parts)?.embedding;
        let carried = views
            .iter()
            .enumerate()
            .map(|(row, (image, _))| (*image, row))
            .collect();
        Ok(Self {
            dim: vectors.dim,
            embedding: vectors.data,
            carried,
            tapes: Vec::new(),
        })
    }

    /// The embedding of an image outside the batch, `[dim]`.
    pub(super) fn vector(&self, image: ImageKey) -> Option<&[f32]> {
        self.carried.get(&image).map(|row| self.row(*row))
    }

    /// The embeddings of all images outside the batch, by key.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (ImageKey, &[f32])> {
        self.carried
            .iter()
            .map(|(image, row)| (*image, self.row(*row)))
    }

    pub(super) fn rows(&self) -> usize {
        self.embedding.len() / self.dim.max(1)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.embedding[row * self.dim..(row + 1) * self.dim]
    }

    /// The gradient of the weights from that of the rows, `[rows, dim]`; `None` if nothing was encoded. Uses up the tapes, the rows stay.
    pub(super) fn backward(&mut self, gradient: &[f32]) -> Result<Option<Gradients>, NnError> {
        let mut sum: Option<Gradients> = None;
        let mut rest = gradient;
        for tape in std::mem::take(&mut self.tapes) {
            let (own, others) = rest.split_at(tape.embedding().data.len());
            rest = others;
            let gradients = tape.backward(own)?;
            match &mut sum {
                Some(sum) => sum.add(&gradients)?,
                None => sum = Some(gradients),
            }
        }
        Ok(sum)
    }

    /// Rows that no encoder computed.
    #[cfg(test)]
    pub(super) fn from_rows(
        dim: usize,
        embedding: Vec<f32>,
        carried: BTreeMap<ImageKey, usize>,
    ) -> Self {
        Self {
            dim,
            embedding,
            carried,
            tapes: Vec::new(),
        }
    }
}
