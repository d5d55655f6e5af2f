//! Max-pooling over 3×3 windows at stride 2 with a pad of 1, and its gradient, a row of outputs at a time.
//! Must never know: layers.
//!
//! Among equal values the first wins, as in PyTorch. What is not finite gives NaN, or a broken network would look healthy
//! from here on: a maximum may lose a NaN, `Σ 0 · value` does not.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::tile::{load, store};

/// Side of the pooled image.
pub(crate) fn pooled_side(side: usize) -> usize {
    (side - 1) / 2 + 1
}

/// Three rows of maps under one row of outputs, those of them that lie inside.
pub(crate) struct MapRows<M> {
    /// `[inside, side, channels]`.
    pub(crate) maps: M,
    pub(crate) inside: Range<usize>,
    pub(crate) channels: usize,
}

impl<M> MapRows<M> {
    /// (place in the window, offset of its values) of the pixels that the window of output column `x` covers.
    #[inline(always)]
    fn window(&self, len: usize, x: usize) -> impl Iterator<Item = (usize, usize)> + use<M> {
        let (inside, channels) = (self.inside.clone(), self.channels);
        let side = len / inside.len() / channels;
        inside.clone().flat_map(move |y| {
            let columns = usize::from(x == 0)..3.min(side + 1 - 2 * x);
            let row = (y - inside.start) * side;
            columns.map(move |c| (3 * y + c, (row + 2 * x + c - 1) * channels))
        })
    }
}

/// Pools a row into `out`. If wanted, `picks` gets each maximum's place in its window (0–8, row by row).
pub(crate) fn pool_row(rows: MapRows<&[f32]>, out: &mut [f32], picks: Option<&mut [f32]>) {
    match picks {
        Some(picks) => Arch::new().dispatch(Pick { rows, out, picks }),
        None => Arch::new().dispatch(Largest { rows, out }),
    }
}

struct Largest<'a> {
    rows: MapRows<&'a [f32]>,
    out: &'a mut [f32],
}

impl WithSimd for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MapRows { maps, channels, .. } = self.rows;
        for (x, out) in self.out.chunks_exact_mut(channels).enumerate() {
            for (v, out) in out.chunks_mut(S::F32_LANES).enumerate() {
                let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
                let mut poison = simd.splat_f32s(0.0);
                for (_, at) in self.rows.window(maps.len(), x) {
                    let value = load(simd, &maps[at + v * S::F32_LANES..][..out.len()]);
                    largest = simd.max_f32s(value, largest);
                    poison = simd.mul_add_e_f32s(value, simd.splat_f32s(0.0), poison);
                }
                store(simd, simd.add_f32s(largest, poison), out);
            }
        }
    }
}

struct Pick<'a> {
    rows: MapRows<&'a [f32]>,
    out: &'a mut [f32],
    picks: &'a mut [f32],
}

impl WithSimd for Pick<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MapRows { maps, channels, .. } = self.rows;
        let pixels = self.out.chunks_exact_mut(channels);
        for (x, (out, picks)) in pixels
            .zip(self.picks.chunks_exact_mut(channels))
            .enumerate()
        {
            let vectors = out
                .chunks_mut(S::F32_LANES)
                .zip(picks.chunks_mut(S::F32_LANES));
            for (v, (out, picks)) in vectors.enumerate() {
                let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
                let mut pick = simd.splat_f32s(0.0);
                let mut poison = simd.splat_f32s(0.0);
                for (place, at) in self.rows.window(maps.len(), x) {
                    let value = load(simd, &maps[at + v * S::F32_LANES..][..out.len()]);
                    let larger = simd.less_than_f32s(largest, value);
                    largest = simd.select_f32s(larger, value, largest);
                    pick = simd.select_f32s(larger, simd.splat_f32s(place as f32), pick);
                    poison = simd.mul_add_e_f32s(value, simd.splat_f32s(0.0), poison);
                }
                store(simd, simd.add_f32s(largest, poison), out);
                store(simd, pick, picks);
            }
        }
    }
}

/// Adds the gradient of a row of outputs to the places of the maps that were picked.
pub(crate) fn pool_row_gradient(rows: MapRows<&mut [f32]>, gradient: &[f32], picks: &[f32]) {
    Arch::new().dispatch(Spread {
        rows,
        gradient,
        picks,
    });
}

struct Spread<'a> {
    rows: MapRows<&'a mut [f32]>,
    gradient: &'a [f32],
    picks: &'a [f32],
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (len, channels) = (self.rows.maps.len(), self.rows.channels);
        let pixels = self.gradient.chunks_exact(channels);
        for (x, (gradient, picks)) in pixels.zip(self.picks.chunks_exact(channels)).enumerate() {
            for (place, at) in self.rows.window(len, x) {
                let out = &mut self.rows.maps[at..at + channels];
                let here = simd.splat_f32s(place as f32);
                for ((out, gradient), picks) in out
                    .chunks_mut(S::F32_LANES)
                    .zip(gradient.chunks(S::F32_LANES))
                    .zip(picks.chunks(S::F32_LANES))
                {
                    let picked = simd.equal_f32s(load(simd, picks), here);
                    let zero = simd.splat_f32s(0.0);
                    let gradient = simd.select_f32s(picked, load(simd, gradient), zero);
                    let sum = simd.add_f32s(load(simd, out), gradient);
                    store(simd, sum, out);
                }
            }
        }
    }
}
