//! 3×3 convolutions at stride 1 by Winograd's method: fewer products, taken as one matrix product for each place of a
//! tile. Four times fewer with tiles of 4×4 outputs, 2.25 times with 2×2 where the maps are small.
//! Must never know: which layer it is.
//!
//! Tiles of the images become `[tile][place][channels]`, the products `[place][tile][channels]`.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::{Conv, Finish, Images};
use super::scratch::Scratch;
use super::tile::{Epilogue, Multiply, Runs, load, panel_width, store};
use super::winograd_scheme::{Four, Line, Scheme, Two};

/// Tiles that pass through all phases together: what they become should stay in the last-level cache.
const CHUNK_TILES: usize = 256;
/// Values between rows that would else lie a power of two apart and fall into the same few cache lines.
pub(super) const SKEW: usize = 16;

/// A tile, places by rows.
pub(super) type Grid<S> = [Line<S>; 6];

/// How a convolution is cut into tiles.
pub(super) struct Tiles<K> {
    pub(super) conv: Conv,
    pub(super) side: usize,
    scheme: PhantomData<K>,
}

/// Side of the tiles' outputs that need fewest products, 4 or 2; none where the method does not fit.
pub(in crate::nn) fn outputs_of_tile(conv: &Conv, side: usize) -> Option<usize> {
    let lanes = panel_width() / 2;
    let whole_vectors = conv.inputs.is_multiple_of(lanes) && conv.outputs.is_multiple_of(lanes);
    let fits = conv.kernel == 3 && conv.stride == 1 && conv.pad == 1 && side > 1 && whole_vectors;
    let products = |out: usize| (side.div_ceil(out) * (out + 2)).pow(2);
    fits.then(|| if products(4) < products(2) { 4 } else { 2 })
}

pub(super) fn four(conv: &Conv, side: usize) -> Tiles<Four> {
    Tiles {
        conv: *conv,
        side,
        scheme: PhantomData,
    }
}

pub(super) fn two(conv: &Conv, side: usize) -> Tiles<Two> {
    Tiles {
        conv: *conv,
        side,
        scheme: PhantomData,
    }
}

/// Applies a one-dimensional map to the first `from` rows of a [`Grid`], then to the first `to` columns. A macro, since
/// a function passed as a value would be compiled without the vector instructions of its caller.
macro_rules! both_ways {
    ($simd:expr, $grid:expr, $from:expr, $to:expr, $map:path) => {{
        let mut grid = $grid;
        for row in grid.iter_mut().take($from) {
            *row = $map($simd, *row);
        }
        for c in 0..$to {
            let [a, b, c_, d, e, f] = grid;
            let column = $map($simd, [a[c], b[c], c_[c], d[c], e[c], f[c]]);
            for (row, value) in grid.iter_mut().zip(column).take($to) {
                row[c] = value;
            }
        }
        grid
    }};
}
pub(super) use both_ways;

impl<K: Scheme> Tiles<K> {
    /// Places of a tile.
    pub(super) fn places(&self) -> usize {
        K::TILE * K::TILE
    }

    pub(super) fn per_row(&self) -> usize {
        self.side.div_ceil(K::OUT)
    }

    pub(super) fn per_image(&self) -> usize {
        self.per_row() * self.per_row()
    }

    /// Images that are worked on together.
    pub(super) fn chunk(&self) -> usize {
        (CHUNK_TILES / self.per_image()).max(1)
    }

    /// Values in an image of `channels`.
    pub(super) fn image_len(&self, channels: usize) -> usize {
        self.side * self.side * channels
    }

    /// Values in a transformed tile of `channels`.
    pub(super) fn tile_len(&self, channels: usize) -> usize {
        self.places() * (channels + SKEW)
    }

    /// Where the rows of `tiles` transformed tiles of `channels` start, for the first place.
    pub(super) fn offsets(&self, tiles: usize, channels: usize) -> Vec<usize> {
        (0..tiles)
            .map(|tile| tile * self.tile_len(channels))
            .collect()
    }

    /// As [`Conv::forward`].
    pub(super) fn forward(&self, images: Images, packed: &[f32], finish: Finish, out: &mut [f32]) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        let chunk = self.chunk();
        let out_len = chunk * self.image_len(outputs);
        let chunks = images
            .data
            .chunks(chunk * self.image_len(inputs))
            .zip(out.chunks_mut(out_len));
        for (i, (images, out)) in chunks.enumerate() {
            let tiles = self.transform(images);
            let products = self.multiply(&tiles, inputs, packed, outputs);
            let residual = finish
                .residual
                .map(|all| &all[i * out_len..i * out_len + out.len()]);
            self.finish(&products, Finish { residual, ..finish }, out);
        }
    }

    /// The images' tiles, transformed: `[tile][place][inputs]`.
    pub(super) fn transform(&self, images: &[f32]) -> Scratch {
        let Conv { inputs, .. } = self.conv;
        let count = images.len() / self.image_len(inputs);
        let mut tiles = Scratch::dirty(count * self.per_image() * self.tile_len(inputs));
        tiles
            .par_chunks_mut(self.per_image() * self.tile_len(inputs))
            .zip(images.par_chunks(self.image_len(inputs)))
            .for_each(|(out, image)| {
                Arch::new().dispatch(Inputs {
                    tiles: self,
                    image,
                    out,
                })
            });
        tiles
    }

    /// For each place, `tiles` (`[tile][place][depth]`) times the panels: `[place][tile][columns]`.
    pub(super) fn multiply(
        &self,
        tiles: &[f32],
        depth: usize,
        packed: &[f32],
        columns: usize,
    ) -> Scratch {
        let offsets = self.offsets(tiles.len() / self.tile_len(depth), depth);
        let len = offsets.len() * columns;
        let mut products = Scratch::dirty(self.places() * (len + SKEW));
        products
            .par_chunks_mut(len + SKEW)
            .enumerate()
            .for_each(|(place, out)| {
                let data = &tiles[place * (depth + SKEW)..];
                let panels = &packed[place * self.place_len(depth)..];
                let (runs, panel_stride, epilogue) =
                    (Runs::one(depth), self.panel_len(depth), Epilogue::default());
                let out = &mut out[..len];
                Multiply {
                    data,
                    offsets: &offsets,
                    runs,
                    panels,
                    panel_stride,
                    out,
                    columns,
                    epilogue,
                }
                .run();
            });
        products
    }

    fn finish(&self, products: &[f32], finish: Finish, out: &mut [f32]) {
        let image_len = self.image_len(self.conv.outputs);
        out.par_chunks_mut(image_len)
            .enumerate()
            .for_each(|(image, out)| {
                let residual = finish
                    .residual
                    .map(|all| &all[image * image_len..(image + 1) * image_len]);
                let finish = Finish { residual, ..finish };
                Arch::new().dispatch(Outputs {
                    tiles: self,
                    products,
                    image,
                    finish,
                    out,
                });
            });
    }

    /// Positions of tile `tile` of an image that lie inside: (row in the tile, column in the tile, pixel), for a window
    /// of `size` that starts `before` pixels before the tile's outputs.
    #[inline(always)]
    pub(super) fn pixels(
        &self,
        tile: usize,
        size: usize,
        before: usize,
    ) -> impl Iterator<Item = (usize, usize, usize)> {
        let (top, left) = (
            tile / self.per_row() * K::OUT,
            tile % self.per_row() * K::OUT,
        );
        let side = self.side;
        let inside =
            move |start: usize| before.saturating_sub(start)..size.min(side + before - start);
        inside(top).flat_map(move |r| {
            inside(left).map(move |c| (r, c, (top + r - before) * side + left + c - before))
        })
    }
}

struct Inputs<'a, K> {
    tiles: &'a Tiles<K>,
    image: &'a [f32],
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for Inputs<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.tiles.conv.inputs;
        let vectors = channels / S::F32_LANES;
        let image = S::as_simd_f32s(self.image).0;
        for (tile, out) in self
            .out
            .chunks_exact_mut(self.tiles.tile_len(channels))
            .enumerate()
        {
            for v in 0..vectors {
                let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
                for (r, c, pixel) in self.tiles.pixels(tile, K::TILE, 1) {
                    grid[r][c] = image[pixel * vectors + v];
                }
                let grid = both_ways!(simd, grid, K::TILE, K::TILE, K::input);
                store_places::<S, K>(simd, &grid, channels + SKEW, v, out);
            }
        }
    }
}

/// Stores a grid's places `stride` apart.
#[inline(always)]
pub(super) fn store_places<S: Simd, K: Scheme>(
    simd: S,
    grid: &Grid<S>,
    stride: usize,
    v: usize,
    out: &mut [f32],
) {
    for (r, row) in grid.iter().enumerate().take(K::TILE) {
        for (c, value) in row.iter().enumerate().take(K::TILE) {
            let at = (r * K::TILE + c) * stride + v * S::F32_LANES;
            store(simd, *value, &mut out[at..at + S::F32_LANES]);
        }
    }
}

/// Loads a tile's places from `[place][…]`, `stride` apart.
#[inline(always)]
pub(super) fn load_places<S: Simd, K: Scheme>(
    simd: S,
    data: &[f32],
    stride: usize,
    at: usize,
) -> Grid<S> {
    let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
    for (r, row) in grid.iter_mut().enumerate().take(K::TILE) {
        for (c, value) in row.iter_mut().enumerate().take(K::TILE) {
            let at = (r * K::TILE + c) * stride + at;
            *value = load(simd, &data[at..at + S::F32_LANES]);
        }
    }
    grid
}

struct Outputs<'a, K> {
    tiles: &'a Tiles<K>,
    products: &'a [f32],
    image: usize,
    finish: Finish<'a>,
    out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for Outputs<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.tiles.conv.outputs;
        let vectors = channels / S::F32_LANES;
        let stride = self.products.len() / self.tiles.places();
        let first = self.image * self.tiles.per_image();
        let out = S::as_mut_simd_f32s(self.out).0;
        let bias = S::as_simd_f32s(self.finish.bias).0;
        let residual = self
            .finish
            .residual
            .map(|residual| S::as_simd_f32s(residual).0);
        for tile in 0..self.tiles.per_image() {
            for (v, &bias) in bias.iter().enumerate() {
                let at = (first + tile) * channels + v * S::F32_LANES;
                let grid = load_places::<S, K>(simd, self.products, stride, at);
                let grid = both_ways!(simd, grid, K::TILE, K::OUT, K::output);
                for (r, c, pixel) in self.tiles.pixels(tile, K::OUT, 0) {
                    let at = pixel * vectors + v;
                    let mut sum = simd.add_f32s(grid[r][c], bias);
                    if let Some(residual) = residual {
                        sum = simd.add_f32s(sum, residual[at]);
                    }
                    if self.finish.relu {
                        // In this order a NaN stays one: x86 gives back the second operand.
                        sum = simd.max_f32s(simd.splat_f32s(0.0), sum);
                    }
                    out[at] = sum;
                }
            }
        }
    }
}
