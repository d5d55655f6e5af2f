//! How a convolution's images are cut into tiles, and where transformed tiles and weights lie in memory.

use std::marker::PhantomData;

use super::scheme::Scheme;
use crate::kernels::shapes::Conv;
use crate::kernels::simd::panel_width;
use crate::kernels::tile::RowPair;

/// Transformed weights of a layer above which larger tiles are not used, 16 MiB: with more, a single image waits longer for the weights than
/// it saves in products.
const MAX_WEIGHTS: usize = 1 << 22;
/// Values between rows that would otherwise lie a power of two apart and share few cache lines.
pub(super) const SKEW: usize = 16;

/// A convolution on images of one side, cut into the tiles of scheme `K`.
pub(crate) struct Tiling<K> {
    pub(super) conv: Conv,
    pub(super) side: usize,
    scheme: PhantomData<K>,
}

/// Side of the tiles' outputs that need fewest products, 4 or 2. `None` where Winograd's method does not fit.
pub(crate) fn outputs_of_tile(conv: &Conv, side: usize) -> Option<usize> {
    let lanes = panel_width() / 2;
    let whole_vectors = conv.inputs.is_multiple_of(lanes) && conv.outputs.is_multiple_of(lanes);
    // On smaller images a tile hardly saves products, and its weights are two to four times as many.
    let fits = conv.kernel == 3 && conv.stride == 1 && conv.pad == 1 && side > 3 && whole_vectors;
    let products = |out: usize| (side.div_ceil(out) * (out + 2)).pow(2);
    let small = 6 * 6 * conv.inputs * conv.outputs <= MAX_WEIGHTS;
    fits.then(|| {
        if small && products(4) < products(2) {
            4
        } else {
            2
        }
    })
}

impl<K: Scheme> Tiling<K> {
    /// `conv`, for which [`outputs_of_tile`] must have given `K::OUT`, on images of `side`.
    pub(crate) fn new(conv: &Conv, side: usize) -> Self {
        Self {
            conv: *conv,
            side,
            scheme: PhantomData,
        }
    }

    /// Places of a tile.
    pub(super) fn places(&self) -> usize {
        K::TILE * K::TILE
    }

    /// Tiles in a row of an image.
    pub(super) fn per_row(&self) -> usize {
        self.side.div_ceil(K::OUT)
    }

    /// Tiles in an image.
    pub(super) fn per_image(&self) -> usize {
        self.per_row() * self.per_row()
    }

    /// Values in an image of `channels`.
    pub(super) fn image_len(&self, channels: usize) -> usize {
        self.side * self.side * channels
    }

    /// Values in the outputs of a row of tiles.
    pub(super) fn band_len(&self) -> usize {
        K::OUT * self.side * self.conv.outputs
    }

    /// Values in a transformed tile of `channels`.
    pub(super) fn tile_len(&self, channels: usize) -> usize {
        self.places() * (channels + SKEW)
    }

    /// Values from one place's panel of packed weights to the next place's.
    pub(super) fn place_len(&self, depth: usize) -> usize {
        // One row more, so that panels are whole rows and places do not lie a power of two apart.
        (depth + 1) * panel_width()
    }

    /// Values from one panel of packed weights to the next.
    pub(super) fn panel_len(&self, depth: usize) -> usize {
        self.places() * self.place_len(depth)
    }

    /// Where `tiles` transformed tiles of `channels` start, for the first place.
    pub(super) fn pairs(&self, tiles: usize, channels: usize) -> Vec<RowPair> {
        let pair = |to| RowPair {
            from: to * self.tile_len(channels),
            to,
        };
        (0..tiles).map(pair).collect()
    }

    /// Positions of tile `tile` of an image that lie inside the image: (row in the tile, column in the tile, pixel), for a window of
    /// `size` that starts `before` pixels before the tile's outputs.
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
