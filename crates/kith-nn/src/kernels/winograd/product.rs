//! The matrix products between transformed tiles and packed weights.

use rayon::prelude::*;

use super::scheme::Scheme;
use super::tiling::{SKEW, Tiling};
use crate::kernels::scratch::Scratch;
use crate::kernels::tile::{Matrix, Multiply, WriteMode};
use crate::kernels::weights::Panels;

impl<K: Scheme> Tiling<K> {
    /// For each place, `tiles` (`[tile][place][depth]`) times the panels: `[place][tile][columns]`.
    pub(super) fn multiply(
        &self,
        tiles: &[f32],
        depth: usize,
        packed: Panels,
        columns: usize,
    ) -> Scratch {
        let pairs = self.pairs(tiles.len() / self.tile_len(depth), depth);
        let len = pairs.len() * columns;
        let mut products = Scratch::dirty(self.places() * (len + SKEW));
        products
            .par_chunks_mut(len + SKEW)
            .enumerate()
            .for_each(|(place, out)| {
                let data = &mut out[..len];
                Multiply {
                    data: &tiles[place * (depth + SKEW)..],
                    pairs: &pairs,
                    depth,
                    panels: packed.skip(place * self.place_len(depth)),
                    panel_stride: self.panel_len(depth),
                    out: &mut Matrix { data, columns },
                    columns,
                    mode: WriteMode::Overwrite,
                }
                .run();
            });
        products
    }
}
