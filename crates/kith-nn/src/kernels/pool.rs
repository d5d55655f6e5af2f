//! Max-pooling over 3×3 windows at stride 2 with a pad of 1, and its gradient, a row of outputs at a time.
//!
//! Among equal values the first wins, as in PyTorch. A window with a value that is not finite gives NaN, so that a broken network does not
//! look healthy from here on: a maximum may lose a NaN, `Σ 0 · value` does not.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::simd::{load, store};

/// Side of the pooled image.
pub(crate) fn pooled_side(side: usize) -> usize {
    (side - 1) / 2 + 1
}

/// The rows of activations under one row of outputs, without those in the padding.
pub(crate) struct WindowRows<A> {
    /// `[inside.len(), side, channels]`.
    pub(crate) activations: A,
    /// Which of the window's three rows they are.
    pub(crate) inside: Range<usize>,
    pub(crate) channels: usize,
}

impl<A> WindowRows<A> {
    /// (index in the window, offset of its values) of the pixels that the window of output column `x` covers.
    #[inline(always)]
    fn window(&self, len: usize, x: usize) -> impl Iterator<Item = (usize, usize)> + use<A> {
        let (inside, channels) = (self.inside.clone(), self.channels);
        let side = len / inside.len() / channels;
        inside.clone().flat_map(move |y| {
            let columns = usize::from(x == 0)..3.min(side + 1 - 2 * x);
            let row = (y - inside.start) * side;
            columns.map(move |c| (3 * y + c, (row + 2 * x + c - 1) * channels))
        })
    }
}

/// Pools a row into `out`. If given, `argmax` gets the index of each maximum in its window (0–8, row by row).
pub(crate) fn pool_row(rows: WindowRows<&[f32]>, out: &mut [f32], argmax: Option<&mut [f32]>) {
    match argmax {
        Some(argmax) => Arch::new().dispatch(MaxPool::<true> { rows, out, argmax }),
        None => Arch::new().dispatch(MaxPool::<false> {
            rows,
            out,
            argmax: &mut [],
        }),
    }
}

/// The loop is compiled twice: without `ARGMAX` it computes no indices, and `argmax` is empty.
struct MaxPool<'a, const ARGMAX: bool> {
    rows: WindowRows<&'a [f32]>,
    out: &'a mut [f32],
    argmax: &'a mut [f32],
}

impl<const ARGMAX: bool> WithSimd for MaxPool<'_, ARGMAX> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WindowRows {
            activations,
            channels,
            ..
        } = self.rows;
        for (x, out) in self.out.chunks_exact_mut(channels).enumerate() {
            for (v, out) in out.chunks_mut(S::F32_LANES).enumerate() {
                let first = v * S::F32_LANES;
                let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
                let mut index = simd.splat_f32s(0.0);
                let mut poison = simd.splat_f32s(0.0);
                for (here, at) in self.rows.window(activations.len(), x) {
                    let value = load(simd, &activations[at + first..][..out.len()]);
                    if ARGMAX {
                        let larger = simd.less_than_f32s(largest, value);
                        index = simd.select_f32s(larger, simd.splat_f32s(here as f32), index);
                    }
                    largest = simd.max_f32s(value, largest);
                    poison = simd.mul_add_e_f32s(value, simd.splat_f32s(0.0), poison);
                }
                store(simd, simd.add_f32s(largest, poison), out);
                if ARGMAX {
                    let argmax = &mut self.argmax[x * channels + first..][..out.len()];
                    store(simd, index, argmax);
                }
            }
        }
    }
}

/// Adds the gradient of a row of outputs to the activations that were the maxima.
pub(crate) fn pool_row_gradient(rows: WindowRows<&mut [f32]>, gradient: &[f32], argmax: &[f32]) {
    Arch::new().dispatch(MaxPoolGradient {
        rows,
        gradient,
        argmax,
    });
}

struct MaxPoolGradient<'a> {
    rows: WindowRows<&'a mut [f32]>,
    gradient: &'a [f32],
    argmax: &'a [f32],
}

impl WithSimd for MaxPoolGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (len, channels) = (self.rows.activations.len(), self.rows.channels);
        let pixels = self.gradient.chunks_exact(channels);
        for (x, (gradient, argmax)) in pixels.zip(self.argmax.chunks_exact(channels)).enumerate() {
            for (index, at) in self.rows.window(len, x) {
                let out = &mut self.rows.activations[at..at + channels];
                let here = simd.splat_f32s(index as f32);
                for ((out, gradient), argmax) in out
                    .chunks_mut(S::F32_LANES)
                    .zip(gradient.chunks(S::F32_LANES))
                    .zip(argmax.chunks(S::F32_LANES))
                {
                    let is_maximum = simd.equal_f32s(load(simd, argmax), here);
                    let zero = simd.splat_f32s(0.0);
                    let gradient = simd.select_f32s(is_maximum, load(simd, gradient), zero);
                    let sum = simd.add_f32s(load(simd, out), gradient);
                    store(simd, sum, out);
                }
            }
        }
    }
}
