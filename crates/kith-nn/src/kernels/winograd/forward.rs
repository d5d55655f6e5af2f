//! The forward convolution: pieces of the batch, each taken through all phases by one task.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::grid::{both_ways, load_places};
use super::scheme::Scheme;
use super::tiling::Tiling;
use super::transform::Inputs;
use crate::kernels::shapes::{Conv, Epilogue, Images};
use crate::kernels::weights::Panels;

/// Tiles of a piece at most: enough to be worth reading the weights for, few enough for their intermediate values to stay in the cache.
const MAX_TILES: usize = 48;
/// Tiles of a piece at least, if there are fewer pieces than threads. The threads then share each phase.
const MIN_TILES: usize = 12;

/// Rows of tiles of one or more images, with their outputs.
struct Piece<'a> {
    /// Among the rows of tiles of all images.
    first: usize,
    rows: usize,
    out: &'a mut [f32],
}

impl<K: Scheme> Tiling<K> {
    /// As [`Conv::forward`].
    pub(crate) fn forward(
        &self,
        images: Images,
        packed: Panels,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pieces(out).into_par_iter().for_each(|piece| {
            let rows = piece.first..piece.first + piece.rows;
            let tiles = self.transform::<Inputs>(images.data, inputs, rows);
            let products = self.multiply(&tiles, inputs, packed, outputs);
            self.write_outputs(&products, epilogue, piece);
        });
    }

    /// Cuts an output into whole images, or each image into whole rows of tiles.
    fn pieces<'a>(&self, out: &'a mut [f32]) -> Vec<Piece<'a>> {
        let (image_len, per_row) = (self.image_len(self.conv.outputs), self.per_row());
        let tiles = out.len() / image_len * self.per_image();
        let wanted = tiles.div_ceil(rayon::current_num_threads());
        let rows = wanted.clamp(MIN_TILES, MAX_TILES) / per_row;
        if rows < per_row {
            let len = rows.max(1) * self.band_len();
            let images = out.chunks_mut(image_len).enumerate();
            let pieces = images.flat_map(|(image, out)| {
                let cut = out.chunks_mut(len).enumerate();
                cut.map(move |(i, out)| self.piece(image * per_row + i * rows.max(1), out))
            });
            return pieces.collect();
        }
        let images = rows / per_row;
        let cut = out.chunks_mut(images * image_len).enumerate();
        cut.map(|(i, out)| self.piece(i * images * per_row, out))
            .collect()
    }

    fn piece<'a>(&self, first: usize, out: &'a mut [f32]) -> Piece<'a> {
        let image_len = self.image_len(self.conv.outputs);
        let rows = out.len() / image_len * self.per_row()
            + (out.len() % image_len).div_ceil(self.band_len());
        Piece { first, rows, out }
    }

    /// Transforms `products` back and applies the epilogue.
    fn write_outputs(&self, products: &[f32], epilogue: Epilogue, piece: Piece) {
        let image_len = self.image_len(self.conv.outputs);
        let start = piece.first / self.per_row() * image_len
            + piece.first % self.per_row() * self.band_len();
        let residual = epilogue.residual.map(|all| &all[start..]);
        let images = piece.out.par_chunks_mut(image_len).enumerate();
        let bands = images.flat_map(|(image, out)| {
            let bands = out.par_chunks_mut(self.band_len()).enumerate();
            bands.map(move |(band, out)| (image, band, out))
        });
        bands.for_each(|(image, band, out)| {
            let at = image * image_len + band * self.band_len();
            let residual = residual.map(|all| &all[at..at + out.len()]);
            Arch::new().dispatch(OutputRow {
                tiling: self,
                products,
                first: (image * self.per_row() + band) * self.per_row(),
                epilogue: Epilogue {
                    residual,
                    ..epilogue
                },
                out,
            });
        });
    }
}

/// The outputs of one row of tiles.
struct OutputRow<'a, K> {
    tiling: &'a Tiling<K>,
    products: &'a [f32],
    /// The row's first tile among the products.
    first: usize,
    epilogue: Epilogue<'a>,
    /// The row's pixels.
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for OutputRow<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, side) = (self.tiling.conv.outputs, self.tiling.side);
        let vectors = channels / S::F32_LANES;
        let stride = self.products.len() / self.tiling.places();
        let out = S::as_mut_simd_f32s(self.out).0;
        let rows = out.len() / (side * vectors);
        let bias = S::as_simd_f32s(self.epilogue.bias).0;
        let residual = self
            .epilogue
            .residual
            .map(|residual| S::as_simd_f32s(residual).0);
        for tile in 0..self.tiling.per_row() {
            let left = tile * K::OUT;
            let columns = K::OUT.min(side - left);
            for (v, &bias) in bias.iter().enumerate() {
                let at = (self.first + tile) * channels + v * S::F32_LANES;
                let grid = load_places::<S, K>(simd, self.products, stride, at);
                let grid = both_ways!(simd, grid, K::TILE, K::OUT, K::output);
                for (r, row) in grid.iter().enumerate().take(K::OUT.min(rows)) {
                    let start = (r * side + left) * vectors + v;
                    for (c, value) in row.iter().enumerate().take(columns) {
                        let at = start + c * vectors;
                        let mut sum = simd.add_f32s(*value, bias);
                        if let Some(residual) = residual {
                            sum = simd.add_f32s(sum, residual[at]);
                        }
                        if self.epilogue.relu {
                            // In this order a NaN stays one: x86 gives back the second operand.
                            sum = simd.max_f32s(simd.splat_f32s(0.0), sum);
                        }
                        out[at] = sum;
                    }
                }
            }
        }
    }
}
