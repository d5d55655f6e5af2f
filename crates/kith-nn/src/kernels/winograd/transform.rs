//! From images to transformed tiles, forward and backward: a row of tiles at a time.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::grid::{both_ways, store_places};
use super::scheme::{Line, Scheme};
use super::tiling::{SKEW, Tiling};
use crate::kernels::scratch::Scratch;

/// Which window of pixels a tile reads, and the linear map that transforms it.
pub(super) trait Direction<K: Scheme>: Send + Sync {
    /// Side of the window.
    const WINDOW: usize;
    /// Pixels by which the window starts before the tile's outputs.
    const BEFORE: usize;
    /// The map, along one direction.
    fn map<S: Simd>(simd: S, line: Line<S>) -> Line<S>;
}

/// Tiles of a convolution's input.
pub(super) struct Inputs;
/// Tiles of the gradient of a convolution's output.
pub(super) struct OutputGradients;

impl<K: Scheme> Direction<K> for Inputs {
    const WINDOW: usize = K::TILE;
    const BEFORE: usize = 1;

    #[inline(always)]
    fn map<S: Simd>(simd: S, line: Line<S>) -> Line<S> {
        K::input(simd, line)
    }
}

impl<K: Scheme> Direction<K> for OutputGradients {
    const WINDOW: usize = K::OUT;
    const BEFORE: usize = 0;

    #[inline(always)]
    fn map<S: Simd>(simd: S, line: Line<S>) -> Line<S> {
        K::output_adjoint(simd, line)
    }
}

impl<K: Scheme> Tiling<K> {
    /// Transforms `rows` of tiles of all `images`, which have `channels`: `[tile][place][channels]`.
    pub(super) fn transform<D: Direction<K>>(
        &self,
        images: &[f32],
        channels: usize,
        rows: Range<usize>,
    ) -> Scratch {
        let len = self.image_len(channels);
        let row_len = self.per_row() * self.tile_len(channels);
        let mut tiles = Scratch::dirty(rows.len() * row_len);
        tiles
            .par_chunks_mut(row_len)
            .zip(rows)
            .for_each(|(out, row)| {
                Arch::new().dispatch(TileRow {
                    tiling: self,
                    channels,
                    image: &images[row / self.per_row() * len..][..len],
                    row: row % self.per_row(),
                    out,
                    direction: PhantomData::<D>,
                })
            });
        tiles
    }
}

/// One row of tiles of an image.
struct TileRow<'a, K, D> {
    tiling: &'a Tiling<K>,
    channels: usize,
    image: &'a [f32],
    row: usize,
    out: &'a mut [f32],
    direction: PhantomData<D>,
}

impl<K: Scheme, D: Direction<K>> WithSimd for TileRow<'_, K, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, side) = (self.channels, self.tiling.side);
        let vectors = channels / S::F32_LANES;
        let image = S::as_simd_f32s(self.image).0;
        let whole = |start: usize| start >= D::BEFORE && start - D::BEFORE + D::WINDOW <= side;
        let top = self.row * K::OUT;
        for (column, out) in self
            .out
            .chunks_exact_mut(self.tiling.tile_len(channels))
            .enumerate()
        {
            let left = column * K::OUT;
            let inside = whole(top) && whole(left);
            for v in 0..vectors {
                let mut grid = [[simd.splat_f32s(0.0); 6]; 6];
                if inside {
                    // The same as below, in loops of known length.
                    let (top, left) = (top - D::BEFORE, left - D::BEFORE);
                    for (r, row) in grid.iter_mut().enumerate().take(D::WINDOW) {
                        let image = &image[((top + r) * side + left) * vectors + v..];
                        for (c, value) in row.iter_mut().enumerate().take(D::WINDOW) {
                            *value = image[c * vectors];
                        }
                    }
                } else {
                    let tile = self.row * self.tiling.per_row() + column;
                    for (r, c, pixel) in self.tiling.pixels(tile, D::WINDOW, D::BEFORE) {
                        grid[r][c] = image[pixel * vectors + v];
                    }
                }
                let grid = both_ways!(simd, grid, D::WINDOW, K::TILE, D::map);
                store_places::<S, K>(simd, &grid, channels + SKEW, v, out);
            }
        }
    }
}
