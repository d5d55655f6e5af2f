//! The stem: convolution with few input channels, ReLU, max-pool 3×3/2, in one pass; and its weights' gradient.
//! Must never know: layers.
//!
//! A pixel of three channels is too short to multiply on its own, so windows are copied together first, a row of
//! outputs at a time. The maps before the pool, the largest of the network, never exist as a whole.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::Conv;
use super::pool::{MapRows, pool_row, pool_row_gradient, pooled_side};
use super::scratch::Scratch;
use super::tile::{BLOCK, Matrix, Multiply, OuterSum, Pair, Put, pack_blocks, panel_width};
use super::weights::Panels;

/// Values copied at once; a run of a window is copied in whole ones, and what is too much is overwritten by the next.
const COPY: usize = 8;

/// A stem on square images.
#[derive(Clone, Copy)]
pub(crate) struct Stem {
    pub(crate) conv: Conv,
    /// Of the images.
    pub(crate) side: usize,
}

impl Stem {
    fn map_side(&self) -> usize {
        self.conv.output_side(self.side)
    }

    /// Side of its output.
    pub(crate) fn pooled_side(&self) -> usize {
        pooled_side(self.map_side())
    }

    fn depth(&self) -> usize {
        self.conv.kernel * self.conv.kernel * self.conv.inputs
    }

    fn image_len(&self) -> usize {
        self.side * self.side * self.conv.inputs
    }

    /// Values in a row of the maps before the pool.
    fn map_row(&self) -> usize {
        self.map_side() * self.conv.outputs
    }

    /// Values in a row of the output.
    fn pooled_row(&self) -> usize {
        self.pooled_side() * self.conv.outputs
    }

    /// From `images` and weights packed by [`Conv::pack`] to `out` (`[batch, side', side', outputs]`). `picks`, laid out
    /// alike, gets each maximum's place in its window (0–8, row by row).
    pub(crate) fn forward(
        &self,
        images: &[f32],
        weights: (Panels, &[f32]),
        out: &mut [f32],
        picks: Option<&mut [f32]>,
    ) {
        let pooled = self.pooled_side() * self.pooled_row();
        // Few images are cut into bands; a band computes one row of maps that the band above has computed as well.
        let bands = (2 * rayon::current_num_threads()).div_ceil(out.len() / pooled);
        let band = self.pooled_side().div_ceil(bands) * self.pooled_row();
        let picks: Vec<Option<&mut [f32]>> = match picks {
            Some(picks) => in_bands(picks, pooled, band).map(Some).collect(),
            None => in_bands(out, pooled, band).map(|_| None).collect(),
        };
        let bands: Vec<_> = in_bands(out, pooled, band).zip(picks).collect();
        let per_image = pooled.div_ceil(band);
        bands
            .into_par_iter()
            .enumerate()
            .for_each(|(i, (out, picks))| {
                let image = &images[i / per_image * self.image_len()..][..self.image_len()];
                let first = i % per_image * band / self.pooled_row();
                self.band((image, first), weights, out, picks);
            });
    }

    /// Rows of an image's output from the given one on, as many as `out` has.
    fn band(
        &self,
        (image, first): (&[f32], usize),
        weights: (Panels, &[f32]),
        out: &mut [f32],
        mut picks: Option<&mut [f32]>,
    ) {
        let map_row = self.map_row();
        let mut windows = Windows::new(self);
        // The rows of maps under one row of the output: the last row of one is the first of the next.
        let mut maps = Scratch::dirty(3 * map_row);
        if first > 0 {
            let above = &mut maps[2 * map_row..];
            windows.multiply(image, 2 * first - 1, weights, above);
        }
        for (i, out) in out.chunks_exact_mut(self.pooled_row()).enumerate() {
            maps.copy_within(2 * map_row.., 0);
            let inside = self.inside(first + i);
            for y in inside.start.max(1)..inside.end {
                let map = &mut maps[y * map_row..(y + 1) * map_row];
                windows.multiply(image, 2 * (first + i) + y - 1, weights, map);
            }
            let rows = MapRows {
                maps: &maps[inside.start * map_row..inside.end * map_row],
                inside,
                channels: self.conv.outputs,
            };
            let at = i * self.pooled_row();
            let picks = picks
                .as_mut()
                .map(|picks| &mut picks[at..at + self.pooled_row()]);
            pool_row(rows, out, picks);
        }
    }

    /// Rows of the window of a row of outputs that lie inside the maps.
    fn inside(&self, row: usize) -> Range<usize> {
        usize::from(row == 0)..3.min(self.map_side() + 1 - 2 * row)
    }

    /// The gradient with respect to the weights, from `images`, the picks and the output's gradient.
    pub(crate) fn weight_gradient(
        &self,
        images: &[f32],
        gradient: &[f32],
        picks: &[f32],
        out: &mut [f32],
    ) {
        let pooled = self.pooled_side() * self.pooled_row();
        let len = out.len();
        let mut parts = Scratch::zeros(images.len() / self.image_len() * len);
        parts
            .par_chunks_mut(len)
            .zip(images.par_chunks(self.image_len()))
            .zip(gradient.par_chunks(pooled).zip(picks.par_chunks(pooled)))
            .for_each(|((out, image), (gradient, picks))| {
                self.image_gradient(image, gradient, picks, out);
            });
        out.fill(0.0);
        for part in parts.chunks_exact(len) {
            out.iter_mut()
                .zip(part)
                .for_each(|(out, part)| *out += part);
        }
    }

    fn image_gradient(&self, image: &[f32], gradient: &[f32], picks: &[f32], out: &mut [f32]) {
        let (side, row) = (self.map_side(), self.map_row());
        let mut maps = Scratch::zeros(side * row);
        let pooled = gradient
            .chunks_exact(self.pooled_row())
            .zip(picks.chunks_exact(self.pooled_row()));
        for (i, (gradient, picks)) in pooled.enumerate() {
            let top = (2 * i).saturating_sub(1);
            let inside = self.inside(i);
            let rows = MapRows {
                maps: &mut maps[top * row..(top + inside.len()) * row],
                inside,
                channels: self.conv.outputs,
            };
            pool_row_gradient(rows, gradient, picks);
        }
        let mut windows = Windows::new(self);
        let columns = self.conv.outputs;
        let rows = (BLOCK / side).max(1);
        let mut right =
            Scratch::dirty(rows * side * columns.div_ceil(panel_width()) * panel_width());
        for (i, maps) in maps.chunks(rows * row).enumerate() {
            let first = i * rows;
            windows.gather(image, first..first + maps.len() / row);
            pack_blocks(maps.chunks_exact(columns), columns, &mut right);
            OuterSum {
                data: &windows.values,
                pairs: &windows.pairs,
                start: 0,
                right: &right,
                out,
                columns,
            }
            .run();
        }
    }
}

/// Cuts each image of `len` values into bands.
fn in_bands(images: &mut [f32], len: usize, band: usize) -> impl Iterator<Item = &mut [f32]> {
    images
        .chunks_mut(len)
        .flat_map(move |image| image.chunks_mut(band))
}

/// Windows of some rows of outputs, one after the other: `[rows, map_side, depth]`.
struct Windows<'a> {
    stem: &'a Stem,
    /// The rows of the image that one row of outputs sees, with zeros beside them.
    strip: Scratch,
    values: Scratch,
    pairs: Vec<Pair>,
}

impl<'a> Windows<'a> {
    fn new(stem: &'a Stem) -> Self {
        let Conv {
            inputs,
            kernel,
            pad,
            ..
        } = stem.conv;
        let rows = (BLOCK / stem.map_side()).max(1);
        Self {
            stem,
            strip: Scratch::dirty(kernel * (stem.side + 2 * pad) * inputs + COPY),
            values: Scratch::dirty(rows * stem.map_side() * stem.depth() + COPY),
            pairs: Vec::with_capacity(rows * stem.map_side()),
        }
    }

    /// Row `row` of the convolution with ReLU.
    fn multiply(
        &mut self,
        image: &[f32],
        row: usize,
        (packed, bias): (Panels, &[f32]),
        out: &mut [f32],
    ) {
        let columns = self.stem.conv.outputs;
        self.gather(image, row..row + 1);
        out.chunks_exact_mut(columns)
            .for_each(|out| out.copy_from_slice(bias));
        let depth = self.stem.depth();
        Multiply {
            data: &self.values,
            pairs: &self.pairs,
            depth,
            panels: packed,
            panel_stride: depth * panel_width(),
            out: &mut Matrix { data: out, columns },
            columns,
            put: Put::AddRelu,
        }
        .run();
    }

    fn gather(&mut self, image: &[f32], rows: Range<usize>) {
        self.pairs.clear();
        for row in rows {
            self.fill_strip(image, row);
            self.copy_row();
        }
    }

    fn fill_strip(&mut self, image: &[f32], row: usize) {
        let Conv {
            inputs,
            stride,
            pad,
            ..
        } = self.stem.conv;
        let (len, before) = (self.stem.side * inputs, pad * inputs);
        for (y, strip) in self.strip.chunks_exact_mut(len + 2 * before).enumerate() {
            match (row * stride + y)
                .checked_sub(pad)
                .filter(|at| *at < self.stem.side)
            {
                Some(at) => {
                    strip[..before].fill(0.0);
                    strip[before..before + len].copy_from_slice(&image[at * len..][..len]);
                    strip[before + len..].fill(0.0);
                }
                None => strip.fill(0.0),
            }
        }
        let end = self.strip.len() - COPY;
        self.strip[end..].fill(0.0);
    }

    fn copy_row(&mut self) {
        let Conv {
            inputs,
            kernel,
            stride,
            pad,
            ..
        } = self.stem.conv;
        let (run, strip_row) = (kernel * inputs, (self.stem.side + 2 * pad) * inputs);
        for x in 0..self.stem.map_side() {
            let at = self.pairs.len() * self.stem.depth();
            self.pairs.push(Pair {
                from: at,
                to: self.pairs.len(),
            });
            for y in 0..kernel {
                let from = &self.strip[y * strip_row + x * stride * inputs..];
                let to = &mut self.values[at + y * run..];
                let copies = from.as_chunks::<COPY>().0.iter();
                let copies = copies.zip(to.as_chunks_mut::<COPY>().0);
                for (from, to) in copies.take(run.div_ceil(COPY)) {
                    *to = *from;
                }
            }
        }
    }
}
