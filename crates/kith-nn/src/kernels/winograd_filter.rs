//! Weights transformed for Winograd's convolution, forward and backward.
//! Must never know: which layer it is.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::Conv;
use super::scratch::{Scratch, take};
use super::tile::{pack_panel, panel_width};
use super::winograd::Tiles;
use super::winograd_scheme::Scheme;
use super::winograd_tiles::{both_ways, store_places};

impl<K: Scheme> Tiles<K> {
    /// Values from one place's panel to the next place's.
    pub(super) fn place_len(&self, depth: usize) -> usize {
        // One row more, so that panels are whole rows and places do not lie a power of two apart.
        (depth + 1) * panel_width()
    }

    /// Values from one panel to the next.
    pub(super) fn panel_len(&self, depth: usize) -> usize {
        self.places() * self.place_len(depth)
    }

    /// Transforms weights for [`Tiles::forward`]: `[panel of outputs][place][inputs][panel_width]`.
    pub(super) fn pack(&self, weights: &[f32]) -> Vec<f32> {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pack_panels(inputs, outputs, |panel, taps| {
            pack_panel(weights.chunks_exact(outputs), outputs, panel, taps);
        })
    }

    /// Transforms weights for the input's gradient: `[panel of inputs][place][outputs][panel_width]`.
    pub(super) fn pack_transposed(&self, weights: &[f32]) -> Vec<f32> {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pack_panels(outputs, inputs, |panel, taps| {
            self.conv.pack_transposed_panel(weights, panel, taps);
        })
    }

    /// `gather` fills `[tap][depth][panel_width]` for a panel.
    fn pack_panels(
        &self,
        depth: usize,
        columns: usize,
        gather: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let panels = columns.div_ceil(panel_width());
        let mut packed = take(panels * self.panel_len(depth));
        packed
            .par_chunks_mut(self.panel_len(depth))
            .enumerate()
            .for_each(|(panel, out)| {
                let mut taps = Scratch::dirty(9 * depth * panel_width());
                gather(panel, &mut taps);
                let place_len = self.place_len(depth);
                Arch::new().dispatch(Filters::<K> {
                    taps: &taps,
                    out,
                    place_len,
                    scheme: PhantomData,
                });
            });
        packed
    }
}

struct Filters<'a, K> {
    taps: &'a [f32],
    out: &'a mut [f32],
    place_len: usize,
    scheme: PhantomData<K>,
}

impl<K: Scheme> WithSimd for Filters<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let taps = S::as_simd_f32s(self.taps).0;
        let tap_len = taps.len() / 9;
        for i in 0..tap_len {
            let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
            for (tap, value) in taps.iter().skip(i).step_by(tap_len).enumerate() {
                grid[tap / 3][tap % 3] = *value;
            }
            let grid = both_ways!(simd, grid, 3, K::TILE, K::filter);
            store_places::<S, K>(simd, &grid, self.place_len, i, self.out);
        }
    }
}
