//! 3×3 convolutions at stride 1 by Winograd's method: fewer products, taken as one matrix product for each place of a
//! tile. Four times fewer with tiles of 4×4 outputs, 2.25 times with 2×2 where the maps are small.
//! Must never know: which layer it is.
//!
//! Tiles of the images become `[tile][place][channels]`, the products `[place][tile][channels]`.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::conv::{Conv, Finish, Images};
use super::scratch::Scratch;
use super::tile::{Matrix, Multiply, Pair, Put, panel_width};
use super::weights::Panels;
use super::winograd_scheme::{Four, Scheme, Two};
use super::winograd_tiles::{Inputs, Outputs};

/// Tiles that pass through all phases together: enough to be worth reading the weights for, few enough for what they
/// become to stay near the processor.
const PIECE_TILES: usize = 48;
/// Transformed weights of a layer, 16 MiB: with more a single image waits longer for them than it saves in products.
const MOST_WEIGHTS: usize = 1 << 22;
/// Fewer tiles are not cut for the sake of more threads: these then share each phase.
const LEAST_TILES: usize = 12;
/// Values between rows that would else lie a power of two apart and fall into the same few cache lines.
pub(super) const SKEW: usize = 16;

/// How a convolution is cut into tiles.
pub(super) struct Tiles<K> {
    pub(super) conv: Conv,
    pub(super) side: usize,
    scheme: PhantomData<K>,
}

/// Side of the tiles' outputs that need fewest products, 4 or 2; none where the method does not fit.
pub(crate) fn outputs_of_tile(conv: &Conv, side: usize) -> Option<usize> {
    let lanes = panel_width() / 2;
    let whole_vectors = conv.inputs.is_multiple_of(lanes) && conv.outputs.is_multiple_of(lanes);
    // On smaller maps a tile hardly saves products, and its weights are two to four times as many.
    let fits = conv.kernel == 3 && conv.stride == 1 && conv.pad == 1 && side > 3 && whole_vectors;
    let products = |out: usize| (side.div_ceil(out) * (out + 2)).pow(2);
    let small = 6 * 6 * conv.inputs * conv.outputs <= MOST_WEIGHTS;
    fits.then(|| {
        if small && products(4) < products(2) {
            4
        } else {
            2
        }
    })
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

    /// Values in an image of `channels`.
    pub(super) fn image_len(&self, channels: usize) -> usize {
        self.side * self.side * channels
    }

    /// Values in a transformed tile of `channels`.
    pub(super) fn tile_len(&self, channels: usize) -> usize {
        self.places() * (channels + SKEW)
    }

    /// Where `tiles` transformed tiles of `channels` start, for the first place.
    pub(super) fn pairs(&self, tiles: usize, channels: usize) -> Vec<Pair> {
        let pair = |to| Pair {
            from: to * self.tile_len(channels),
            to,
        };
        (0..tiles).map(pair).collect()
    }

    /// As [`Conv::forward`].
    pub(super) fn forward(&self, images: Images, packed: Panels, finish: Finish, out: &mut [f32]) {
        let Conv {
            inputs, outputs, ..
        } = self.conv;
        self.pieces(out).into_par_iter().for_each(|piece| {
            let rows = piece.first..piece.first + piece.rows;
            let tiles = self.transform(images.data, rows);
            let products = self.multiply(&tiles, inputs, packed, outputs);
            self.finish(&products, finish, piece);
        });
    }

    /// Cuts an output into whole images, or each image into whole rows of tiles.
    fn pieces<'a>(&self, out: &'a mut [f32]) -> Vec<Piece<'a>> {
        let (image_len, per_row) = (self.image_len(self.conv.outputs), self.per_row());
        let tiles = out.len() / image_len * self.per_image();
        let wanted = tiles.div_ceil(rayon::current_num_threads());
        let rows = wanted.clamp(LEAST_TILES, PIECE_TILES) / per_row;
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

    /// Values in the outputs of a row of tiles.
    fn band_len(&self) -> usize {
        K::OUT * self.side * self.conv.outputs
    }

    /// The tiles of `rows` of tiles of all images, transformed: `[tile][place][inputs]`.
    pub(super) fn transform(&self, images: &[f32], rows: Range<usize>) -> Scratch {
        let Conv { inputs, .. } = self.conv;
        let len = self.image_len(inputs);
        let mut tiles = Scratch::dirty(rows.len() * self.per_row() * self.tile_len(inputs));
        tiles
            .par_chunks_mut(self.per_row() * self.tile_len(inputs))
            .zip(rows)
            .for_each(|(out, row)| {
                Arch::new().dispatch(Inputs {
                    tiles: self,
                    image: &images[row / self.per_row() * len..][..len],
                    row: row % self.per_row(),
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
        packed: Panels,
        columns: usize,
    ) -> Scratch {
        let pairs = self.pairs(tiles.len() / self.tile_len(depth), depth);
        let len = pairs.len() * columns;
        let mut products = Scratch::dirty(self.places() * (len + SKEW));
        products
            .par_chunks_mut(len + SKEW)
            .enumerate()
            .for_each(|(place, out)| {
                let data = &mut out[..len];
                Multiply {
                    data: &tiles[place * (depth + SKEW)..],
                    pairs: &pairs,
                    depth,
                    panels: packed.skip(place * self.place_len(depth)),
                    panel_stride: self.panel_len(depth),
                    out: &mut Matrix { data, columns },
                    columns,
                    put: Put::Write,
                }
                .run();
            });
        products
    }

    fn finish(&self, products: &[f32], finish: Finish, piece: Piece) {
        let image_len = self.image_len(self.conv.outputs);
        let start = piece.first / self.per_row() * image_len
            + piece.first % self.per_row() * self.band_len();
        let residual = finish.residual.map(|all| &all[start..]);
        let images = piece.out.par_chunks_mut(image_len).enumerate();
        let bands = images.flat_map(|(image, out)| {
            let bands = out.par_chunks_mut(self.band_len()).enumerate();
            bands.map(move |(band, out)| (image, band, out))
        });
        bands.for_each(|(image, band, out)| {
            let at = image * image_len + band * self.band_len();
            let residual = residual.map(|all| &all[at..at + out.len()]);
            Arch::new().dispatch(Outputs {
                tiles: self,
                products,
                first: (image * self.per_row() + band) * self.per_row(),
                finish: Finish { residual, ..finish },
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

/// Rows of tiles of one or more images, with their outputs.
struct Piece<'a> {
    /// Among the rows of tiles of all images.
    first: usize,
    rows: usize,
    out: &'a mut [f32],
}
