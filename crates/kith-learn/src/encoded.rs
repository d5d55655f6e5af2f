//! Embeddings with the tapes of their forward passes, from which the gradients of the weights are computed.

use std::collections::BTreeMap;

use super::{
    passes::{Pass, PassRows, batch_images, passes},
    views::View,
};
use kith_mcmc::{Side, SidedImage};
use kith_nn::{Gradients, NnError, Tape, TowerGradients, Towers, UploadedPixels};

/// Rows of embeddings: those of the batch, if any, then those of images outside of it.
#[derive(Default)]
pub(super) struct Encoded {
    /// Number of values in a row.
    pub(super) dim: usize,
    /// `[rows, dim]`.
    pub(super) embedding: Vec<f32>,
    /// The row of each image outside the batch.
    pub(super) carried: BTreeMap<SidedImage, usize>,
    tapes: Vec<TapeOfPass>,
}

struct TapeOfPass {
    side: Side,
    rows: PassRows,
    tape: Tape,
}

/// Images for a pass of each encoder, all of one size.
#[derive(Clone, Copy)]
pub(super) struct ToEncode<'a> {
    /// Pixels across each.
    pub(super) across: usize,
    /// `[images, across, across, 3]`, with the two sides of pairs in turn.
    pub(super) pixels: &'a [f32],
    /// Images outside the batch, which follow.
    pub(super) views: &'a [View],
}

impl<'a> ToEncode<'a> {
    /// The passes, in which the images are rows `first` and following.
    pub(super) fn passes(self, towers: &Towers, first: usize) -> Vec<Pass<'a>> {
        let Self {
            across,
            pixels,
            views,
        } = self;
        let views = views.iter().map(|(image, view)| (image.side, &view[..]));
        passes(towers, first, batch_images(across, pixels).chain(views))
    }
}

impl Encoded {
    /// Encodes images in one pass of each encoder. `uploaded` are the images of these passes that are on the device, in their order. Does nothing if there is no image.
    pub(super) fn push(
        &mut self,
        towers: &Towers,
        images: ToEncode<'_>,
        uploaded: Vec<Option<UploadedPixels>>,
    ) -> Result<(), NnError> {
        let first = self.rows();
        let passes = images.passes(towers, first);
        let new: usize = passes.iter().map(|pass| pass.images.len()).sum();
        self.dim = towers.config().dim;
        self.embedding.resize((first + new) * self.dim, 0.0);
        let mut uploaded = uploaded.into_iter();
        for pass in passes {
            let encoder = towers.get(pass.side);
            let uploaded = uploaded.next().flatten();
            let tape = encoder.forward_train_uploaded(pass.images(images.across), uploaded)?;
            let own = &tape.embedding().data;
            pass.rows.scatter(self.dim, own, &mut self.embedding);
            self.tapes.push(TapeOfPass {
                side: pass.side,
                rows: pass.rows,
                tape,
            });
        }
        self.carry(images.views, first + new - images.views.len());
        Ok(())
    }

    /// Encodes `images` outside a batch without recording a tape.
    pub(super) fn without_tape(towers: &Towers, images: ToEncode<'_>) -> Result<Self, NnError> {
        let dim = towers.config().dim;
        let mut encoded = Self {
            dim,
            embedding: vec![0.0; images.views.len() * dim],
            ..Self::default()
        };
        for pass in images.passes(towers, 0) {
            let encoder = towers.get(pass.side);
            let vectors = encoder
                .forward_images(pass.images(images.across))?
                .embedding;
            pass.rows
                .scatter(dim, &vectors.data, &mut encoded.embedding);
        }
        encoded.carry(images.views, 0);
        Ok(encoded)
    }

    /// Notes that the embeddings of `views` are row `first` and those that follow.
    fn carry(&mut self, views: &[View], first: usize) {
        let rows = views.iter().zip(first..);
        self.carried
            .extend(rows.map(|((image, _), row)| (*image, row)));
    }

    /// The embedding of an image outside the batch, `[dim]`.
    pub(super) fn vector(&self, image: SidedImage) -> Option<&[f32]> {
        self.carried.get(&image).map(|row| self.row(*row))
    }

    /// The embeddings of all images outside the batch, by key.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (SidedImage, &[f32])> {
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

    /// The gradients of the weights from that of the rows, `[rows, dim]`; `None` if nothing was encoded. Uses up the tapes, the rows stay.
    pub(super) fn backward(&mut self, gradient: &[f32]) -> Result<Option<TowerGradients>, NnError> {
        let mut sums = GradientSums::default();
        for TapeOfPass { side, rows, tape } in std::mem::take(&mut self.tapes) {
            let gradients = tape.backward(&rows.gather(self.dim, gradient))?;
            sums.add(side, gradients)?;
        }
        Ok(sums.finish())
    }

    /// Rows that no encoder computed.
    #[cfg(test)]
    pub(super) fn from_rows(
        dim: usize,
        embedding: Vec<f32>,
        carried: BTreeMap<SidedImage, usize>,
    ) -> Self {
        Self {
            dim,
            embedding,
            carried,
            tapes: Vec::new(),
        }
    }
}

/// The gradients of several passes, summed for each encoder.
#[derive(Default)]
pub(super) struct GradientSums(BTreeMap<Side, Gradients>);

impl GradientSums {
    /// Adds the gradients of a pass of `side`'s encoder.
    pub(super) fn add(&mut self, side: Side, gradients: Gradients) -> Result<(), NnError> {
        match self.0.get_mut(&side) {
            Some(sum) => sum.add(&gradients),
            None => {
                self.0.insert(side, gradients);
                Ok(())
            }
        }
    }

    /// The sums of all encoders; `None` without any. A batch has images of both sides, so no encoder is left out.
    pub(super) fn finish(self) -> Option<TowerGradients> {
        let sums: Vec<Gradients> = self.0.into_values().collect();
        (!sums.is_empty()).then(|| TowerGradients::new(sums))
    }
}
