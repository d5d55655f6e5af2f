//! From images to transformed tiles, and from products to outputs: a row of tiles at a time.
//! Must never know: which layer it is.

use pulp::{Simd, WithSimd};

use super::conv::Finish;
use super::tile::{load, store};
use super::winograd::{SKEW, Tiles};
use super::winograd_scheme::{Line, Scheme};

/// A tile, places by rows.
pub(super) type Grid<S> = [Line<S>; 6];

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

/// A row of tiles.
pub(super) struct Inputs<'a, K> {
    pub(super) tiles: &'a Tiles<K>,
    pub(super) image: &'a [f32],
    pub(super) row: usize,
    pub(super) out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for Inputs<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, side) = (self.tiles.conv.inputs, self.tiles.side);
        let vectors = channels / S::F32_LANES;
        let image = S::as_simd_f32s(self.image).0;
        let whole = |start: usize| start > 0 && start - 1 + K::TILE <= side;
        let top = self.row * K::OUT;
        for (column, out) in self
            .out
            .chunks_exact_mut(self.tiles.tile_len(channels))
            .enumerate()
        {
            let left = column * K::OUT;
            let inside = whole(top) && whole(left);
            for v in 0..vectors {
                let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
                if inside {
                    // The same as below, in loops of known length.
                    for (r, row) in grid.iter_mut().enumerate().take(K::TILE) {
                        let image = &image[((top + r - 1) * side + left - 1) * vectors + v..];
                        for (c, value) in row.iter_mut().enumerate().take(K::TILE) {
                            *value = image[c * vectors];
                        }
                    }
                } else {
                    let tile = self.row * self.tiles.per_row() + column;
                    for (r, c, pixel) in self.tiles.pixels(tile, K::TILE, 1) {
                        grid[r][c] = image[pixel * vectors + v];
                    }
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

/// A row of tiles.
pub(super) struct Outputs<'a, K> {
    pub(super) tiles: &'a Tiles<K>,
    pub(super) products: &'a [f32],
    /// Its first tile among the products.
    pub(super) first: usize,
    pub(super) finish: Finish<'a>,
    /// Its rows of pixels.
    pub(super) out: &'a mut [f32],
}

impl<K: Scheme> WithSimd for Outputs<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, side) = (self.tiles.conv.outputs, self.tiles.side);
        let vectors = channels / S::F32_LANES;
        let stride = self.products.len() / self.tiles.places();
        let out = S::as_mut_simd_f32s(self.out).0;
        let rows = out.len() / (side * vectors);
        let bias = S::as_simd_f32s(self.finish.bias).0;
        let residual = self
            .finish
            .residual
            .map(|residual| S::as_simd_f32s(residual).0);
        for tile in 0..self.tiles.per_row() {
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
}
