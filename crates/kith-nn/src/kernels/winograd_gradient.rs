//! The gradients of Winograd's convolution: its maps transposed, one after the other.
//! Must never know: which layer it is.

use std::cell::OnceCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::{Conv, Images};
use super::direct::Target;
use super::scratch::Scratch;
use super::tile::{OuterSum, pack_blocks, panel_width, store};
use super::winograd::{SKEW, Tiles};
use super::winograd_scheme::Scheme;
use super::winograd_tiles::{both_ways, load_places, store_places};

/// Tiles that pass through all phases together: what they become should stay in the last-level cache.
const CHUNK_TILES: usize = 256;

impl<K: Scheme> Tiles<K> {
    /// As [`Conv::gradients`].
    pub(super) fn gradients(
        &self,
        images: Images,
        gradient: &[f32],
        weights: &mut [f32],
        target: Target,
    ) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        // An even number of images in each chunk, whatever the number of threads: sums depend on it.
        let batch = images.data.len() / self.image_len(inputs);
        let most = (CHUNK_TILES / self.per_image()).max(1);
        let chunk = batch.div_ceil(batch.div_ceil(most));
        let (image_len, gradient_len) = (
            chunk * self.image_len(inputs),
            chunk * self.image_len(outputs),
        );
        let mut sums = Scratch::zeros(self.places() * (inputs * outputs + SKEW));
        let packed = OnceCell::new();
        let Target { pack, data, add } = target;
        let mut back = |(chunk, right): (Range<usize>, Scratch)| {
            let panels = packed.get_or_init(pack).panels();
            let products = self.multiply(&right, outputs, panels, inputs);
            self.scatter(&products, &mut data[chunk], add);
        };
        // The last chunk, or the only one, goes back when the sums are free again.
        let mut waiting = None;
        for (i, gradient) in gradient.chunks(gradient_len).enumerate() {
            let chunk = i * image_len..images.data.len().min((i + 1) * image_len);
            let right = self.transform_gradient(gradient);
            let rows = chunk.len() / self.image_len(inputs) * self.per_row();
            let left = self.transform(&images.data[chunk.clone()], 0..rows);
            self.add_products(&left, &right, &mut sums);
            if let Some(before) = waiting.replace((chunk, right)) {
                back(before);
            }
        }
        self.collect_weights(&sums, weights);
        drop(sums);
        if let Some(last) = waiting {
            back(last);
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
                OuterSum {
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

    fn scatter(&self, products: &[f32], data: &mut [f32], add: bool) {
        data.par_chunks_mut(self.image_len(self.conv.inputs))
            .enumerate()
            .for_each(|(image, out)| {
                if !add {
                    out.fill(0.0);
                }
                Arch::new().dispatch(InputGradients {
                    tiles: self,
                    products,
                    image,
                    out,
                });
            });
    }

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
                tiles: self,
                sums,
                input,
                out,
            });
        });
    }

    /// The output gradient's tiles, transformed: `[tile][place][outputs]`.
    fn transform_gradient(&self, gradient: &[f32]) -> Scratch {
        let Conv { outputs, .. } = self.conv;
        let count = gradient.len() / self.image_len(outputs);
        let mut tiles = Scratch::dirty(count * self.per_image() * self.tile_len(outputs));
        tiles
            .par_chunks_mut(self.per_image() * self.tile_len(outputs))
            .zip(gradient.par_chunks(self.image_len(outputs)))
            .for_each(|(out, image)| {
                Arch::new().dispatch(OutputGradients {
                    tiles: self,
                    image,
                    out,
                })
            });
        tiles
    }
}

struct OutputGradients<'a, K> {
    tiles: &'a Tiles<K>,
    image: &'a [f32],
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for OutputGradients<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.tiles.conv.outputs;
        let vectors = channels / S::F32_LANES;
        let image = S::as_simd_f32s(self.image).0;
        for (tile, out) in self
            .out
            .chunks_exact_mut(self.tiles.tile_len(channels))
            .enumerate()
        {
            for v in 0..vectors {
                let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
                for (r, c, pixel) in self.tiles.pixels(tile, K::OUT, 0) {
                    grid[r][c] = image[pixel * vectors + v];
                }
                let grid = both_ways!(simd, grid, K::OUT, K::TILE, K::output_adjoint);
                store_places::<S, K>(simd, &grid, channels + SKEW, v, out);
            }
        }
    }
}

struct InputGradients<'a, K> {
    tiles: &'a Tiles<K>,
    products: &'a [f32],
    image: usize,
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for InputGradients<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.tiles.conv.inputs;
        let vectors = channels / S::F32_LANES;
        let stride = self.products.len() / self.tiles.places();
        let first = self.image * self.tiles.per_image();
        let out = S::as_mut_simd_f32s(self.out).0;
        for tile in 0..self.tiles.per_image() {
            for v in 0..vectors {
                let at = (first + tile) * channels + v * S::F32_LANES;
                let grid = load_places::<S, K>(simd, self.products, stride, at);
                let grid = both_ways!(simd, grid, K::TILE, K::TILE, K::input_adjoint);
                for (r, c, pixel) in self.tiles.pixels(tile, K::TILE, 1) {
                    let at = pixel * vectors + v;
                    out[at] = simd.add_f32s(out[at], grid[r][c]);
                }
            }
        }
    }
}

struct WeightGradients<'a, K> {
    tiles: &'a Tiles<K>,
    sums: &'a [f32],
    input: usize,
    /// This input channel's row for each tap.
    out: Vec<&'a mut [f32]>,
}

impl<K: Scheme> WithSimd for WeightGradients<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let outputs = self.tiles.conv.outputs;
        let stride = self.sums.len() / self.tiles.places();
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
