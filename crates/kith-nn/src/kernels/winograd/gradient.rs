//! The gradients of Winograd's convolution: the adjoint of each of its maps, one after the other.

use std::cell::OnceCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::grid::{both_ways, load_places};
use super::scheme::Scheme;
use super::tiling::{SKEW, Tiling};
use super::transform::{Inputs, OutputGradients};
use crate::kernels::scratch::Scratch;
use crate::kernels::shapes::{Conv, Images, InputGradient};
use crate::kernels::simd::{panel_width, store};
use crate::kernels::tile::{OuterProductSum, pack_blocks};

/// Tiles that pass through all phases together: their intermediate values should stay in the last-level cache.
const CHUNK_TILES: usize = 256;

impl<K: Scheme> Tiling<K> {
    /// As [`Conv::gradients`].
    pub(crate) fn gradients(
        &self,
        images: Images,
        gradient: &[f32],
        weights: &mut [f32],
        input: InputGradient,
    ) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        // The order of the sums depends on the size of a chunk, so the number of threads must not change it.
        let batch = images.data.len() / self.image_len(inputs);
        let max_images = (CHUNK_TILES / self.per_image()).max(1);
        let chunk = batch.div_ceil(batch.div_ceil(max_images));
        let (image_len, gradient_len) = (
            chunk * self.image_len(inputs),
            chunk * self.image_len(outputs),
        );
        let mut sums = Scratch::zeros(self.places() * (inputs * outputs + SKEW));
        let packed = OnceCell::new();
        let InputGradient {
            pack,
            data,
            accumulate,
        } = input;
        let mut propagate = |(chunk, right): (Range<usize>, Scratch)| {
            let panels = packed.get_or_init(pack).panels();
            let products = self.multiply(&right, outputs, panels, inputs);
            self.scatter(&products, &mut data[chunk], accumulate);
        };
        // The input gradient of the last chunk, or the only one, is computed when the sums are free again.
        let mut waiting = None;
        for (i, gradient) in gradient.chunks(gradient_len).enumerate() {
            let chunk = i * image_len..images.data.len().min((i + 1) * image_len);
            let rows = 0..chunk.len() / self.image_len(inputs) * self.per_row();
            let right = self.transform::<OutputGradients>(gradient, outputs, rows.clone());
            let left = self.transform::<Inputs>(&images.data[chunk.clone()], inputs, rows);
            self.add_products(&left, &right, &mut sums);
            if let Some(before) = waiting.replace((chunk, right)) {
                propagate(before);
            }
        }
        self.collect_weights(&sums, weights);
        drop(sums);
        if let Some(last) = waiting {
            propagate(last);
        }
    }

    /// For each place, adds the product of the transposed inputs and the gradients: `[place][inputs, outputs]`.
    fn add_products(&self, left: &[f32], right: &[f32], sums: &mut [f32]) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        let pairs = &self.pairs(left.len() / self.tile_len(inputs), inputs);
        let stride = inputs * outputs + SKEW;
        sums.par_chunks_mut(stride)
            .enumerate()
            .for_each(|(place, out)| {
                let rows = right[place * (outputs + SKEW)..]
                    .chunks(self.tile_len(outputs))
                    .map(|row| &row[..outputs]);
                let mut packed =
                    Scratch::dirty(pairs.len() * outputs.div_ceil(panel_width()) * panel_width());
                pack_blocks(rows, outputs, &mut packed);
                let (start, out) = (place * (inputs + SKEW), &mut out[..inputs * outputs]);
                OuterProductSum {
                    data: left,
                    pairs,
                    start,
                    right: &packed,
                    out,
                    columns: outputs,
                }
                .run();
            });
    }

    /// Transforms `products` back to the gradient of the images.
    fn scatter(&self, products: &[f32], data: &mut [f32], accumulate: bool) {
        data.par_chunks_mut(self.image_len(self.conv.inputs))
            .enumerate()
            .for_each(|(image, out)| {
                if !accumulate {
                    out.fill(0.0);
                }
                Arch::new().dispatch(InputGradients {
                    tiling: self,
                    products,
                    image,
                    out,
                });
            });
    }

    /// Transforms `sums` back to the gradient of the weights.
    fn collect_weights(&self, sums: &[f32], out: &mut [f32]) {
        let tap_len = self.conv.inputs * self.conv.outputs;
        // Each input channel's row lies in nine places: one for each tap.
        let mut rows: Vec<Vec<&mut [f32]>> = (0..self.conv.inputs)
            .map(|_| Vec::with_capacity(9))
            .collect();
        for tap in out.chunks_exact_mut(tap_len) {
            for (row, taps) in tap.chunks_exact_mut(self.conv.outputs).zip(&mut rows) {
                taps.push(row);
            }
        }
        rows.into_par_iter().enumerate().for_each(|(input, out)| {
            Arch::new().dispatch(WeightGradients {
                tiling: self,
                sums,
                input,
                out,
            });
        });
    }
}

/// The input gradient of one image.
struct InputGradients<'a, K> {
    tiling: &'a Tiling<K>,
    products: &'a [f32],
    image: usize,
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for InputGradients<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.tiling.conv.inputs;
        let vectors = channels / S::F32_LANES;
        let stride = self.products.len() / self.tiling.places();
        let first = self.image * self.tiling.per_image();
        let out = S::as_mut_simd_f32s(self.out).0;
        for tile in 0..self.tiling.per_image() {
            for v in 0..vectors {
                let at = (first + tile) * channels + v * S::F32_LANES;
                let grid = load_places::<S, K>(simd, self.products, stride, at);
                let grid = both_ways!(simd, grid, K::TILE, K::TILE, K::input_adjoint);
                for (r, c, pixel) in self.tiling.pixels(tile, K::TILE, 1) {
                    let at = pixel * vectors + v;
                    out[at] = simd.add_f32s(out[at], grid[r][c]);
                }
            }
        }
    }
}

/// The gradient of one input channel's weights.
struct WeightGradients<'a, K> {
    tiling: &'a Tiling<K>,
    sums: &'a [f32],
    input: usize,
    /// This input channel's row for each tap.
    out: Vec<&'a mut [f32]>,
}

impl<K: Scheme> WithSimd for WeightGradients<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let outputs = self.tiling.conv.outputs;
        let stride = self.sums.len() / self.tiling.places();
        for v in 0..outputs / S::F32_LANES {
            let at = self.input * outputs + v * S::F32_LANES;
            let grid = load_places::<S, K>(simd, self.sums, stride, at);
            let grid = both_ways!(simd, grid, K::TILE, 3, K::filter_adjoint);
            for (tap, out) in self.out.iter_mut().enumerate() {
                let out = &mut out[v * S::F32_LANES..(v + 1) * S::F32_LANES];
                store(simd, grid[tap / 3][tap % 3], out);
            }
        }
    }
}
