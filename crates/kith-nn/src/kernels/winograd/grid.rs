//! One tile in registers: loaded, stored, and transformed along both of its directions.

use pulp::Simd;

use super::scheme::{Line, Scheme};
use crate::kernels::simd::{load, store};

/// A tile by rows, each lane another channel.
pub(super) type Grid<S> = [Line<S>; 6];

/// Applies a one-dimensional map to the first `from` rows of a [`Grid`], then to the first `to` columns. It is a macro because a
/// function passed as a value would be compiled without the vector instructions of its caller.
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

/// Stores vector `v` of each place of a tile. Places lie `stride` apart.
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

/// Loads one vector of each place of a tile, from `at` within the place. Places lie `stride` apart.
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
