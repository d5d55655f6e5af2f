//! Weights transformed and packed for Winograd's convolution, forward and backward.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::grid::{both_ways, store_places};
use super::scheme::Scheme;
use super::tiling::Tiling;
use crate::kernels::scratch::{Scratch, take};
use crate::kernels::shapes::Conv;
use crate::kernels::simd::panel_width;
use crate::kernels::tile::pack_panel;

impl<K: Scheme> Tiling<K> {
    /// Transforms weights for [`Tiling::forward`]: `[panel of outputs][place][inputs][panel_width]`.
    pub(crate) fn pack(&self, weights: &[f32]) -> Vec<f32> {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pack_panels(inputs, outputs, |panel, taps| {
            pack_panel(weights.chunks_exact(outputs), outputs, panel, taps);
        })
    }

    /// Transforms weights for the input's gradient: `[panel of inputs][place][outputs][panel_width]`.
    pub(crate) fn pack_transposed(&self, weights: &[f32]) -> Vec<f32> {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pack_panels(outputs, inputs, |panel, taps| {
            self.conv.pack_transposed_panel(weights, panel, taps);
        })
    }

    /// Packs all panels; `gather` fills `[tap][depth][panel_width]` for one of them.
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

/// One panel of filters.
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
