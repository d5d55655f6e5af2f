//! Which images go through which encoder: rows of embeddings, split into a pass of each encoder, and put together again.

use kith_mcmc::Side;
use kith_nn::{Images, Towers};

/// The images among some rows that one encoder sees.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    /// The side that the encoder is named after.
    pub(super) side: Side,
    /// `[side, side, 3]` each.
    pub(super) images: Vec<&'a [f32]>,
    pub(super) rows: PassRows,
}

impl Pass<'_> {
    /// Its images, of `across` pixels.
    pub(super) fn images(&self, across: usize) -> Images<'_> {
        Images {
            side: across,
            parts: &self.images,
        }
    }
}

/// The rows of a pass's images.
#[derive(Debug, Default)]
pub(super) struct PassRows(Vec<usize>);

/// The passes over `images`, which are rows `first` and following, each with the side that it is on. Encoders without an image have none.
pub(super) fn passes<'a>(
    towers: &Towers,
    first: usize,
    images: impl Iterator<Item = (Side, &'a [f32])>,
) -> Vec<Pass<'a>> {
    let mut passes: Vec<Pass<'a>> = towers
        .each()
        .map(|(side, _)| Pass {
            side,
            images: Vec::new(),
            rows: PassRows::default(),
        })
        .collect();
    for (row, (side, image)) in images.enumerate() {
        let side = towers.encoder_side(side);
        for pass in passes.iter_mut().filter(|pass| pass.side == side) {
            pass.images.push(image);
            pass.rows.0.push(first + row);
        }
    }
    passes.retain(|pass| !pass.images.is_empty());
    passes
}

/// The pixels of a batch, image by image of `across` pixels, with their sides: each pair's anchor, then its positive.
pub(super) fn batch_images(across: usize, pixels: &[f32]) -> impl Iterator<Item = (Side, &[f32])> {
    Side::BOTH
        .into_iter()
        .cycle()
        .zip(pixels.chunks(across * across * 3))
}

impl PassRows {
    /// At most `count` rows of the pass from the `first` on.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        let rows = self.0.iter().skip(first).take(count);
        Self(rows.copied().collect())
    }

    /// Writes the pass's results, `[images, dim]`, to their rows of `all`, `[rows, dim]`.
    pub(super) fn scatter(&self, dim: usize, own: &[f32], all: &mut [f32]) {
        for (row, own) in self.0.iter().zip(own.chunks_exact(dim)) {
            all[row * dim..(row + 1) * dim].copy_from_slice(own);
        }
    }

    /// The pass's rows of `all`, `[images, dim]`.
    pub(super) fn gather(&self, dim: usize, all: &[f32]) -> Vec<f32> {
        let rows = self.0.iter().map(|row| &all[row * dim..(row + 1) * dim]);
        rows.flatten().copied().collect()
    }
}
