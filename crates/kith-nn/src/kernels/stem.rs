//! The stem: a convolution with few input channels, ReLU and max-pool 3×3/2 in one pass; and its weights' gradient.
//!
//! A pixel of three channels is too short to multiply on its own. So windows are gathered first, a row of outputs at a time. The activations
//! before the pool, the largest of the network, never exist as a whole.

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::accumulate;
use super::pool::{WindowRows, pool_row, pool_row_gradient, pooled_side};
use super::scratch::Scratch;
use super::shapes::Conv;
use super::simd::panel_width;
use super::tile::{BLOCK, Matrix, Multiply, OuterProductSum, RowPair, WriteMode, pack_blocks};
use super::weights::Panels;

/// Values copied at once. A run of a window is copied in whole ones; the next run overwrites what is too much.
const COPY: usize = 8;

/// The stem on square images.
#[derive(Clone, Copy)]
pub(crate) struct Stem {
    pub(crate) conv: Conv,
    /// Side of the images.
    pub(crate) side: usize,
}

impl Stem {
    /// Side of the activations before the pool.
    fn conv_side(&self) -> usize {
        self.conv.output_side(self.side)
    }

    /// Side of the output.
    pub(crate) fn pooled_side(&self) -> usize {
        pooled_side(self.conv_side())
    }

    fn depth(&self) -> usize {
        self.conv.kernel * self.conv.kernel * self.conv.inputs
    }

    fn image_len(&self) -> usize {
        self.side * self.side * self.conv.inputs
    }

    /// Values in a row of the activations before the pool.
    fn conv_row(&self) -> usize {
        self.conv_side() * self.conv.outputs
    }

    /// Values in a row of the output.
    fn pooled_row(&self) -> usize {
        self.pooled_side() * self.conv.outputs
    }

    /// Computes `out` (`[batch, side', side', outputs]`) from `images`, weights packed by [`Conv::pack`] and bias. `argmax`, of the same
    /// shape, gets the index of each maximum in its window (0–8, row by row).
    pub(crate) fn forward(
        &self,
        images: &[f32],
        weights: (Panels, &[f32]),
        out: &mut [f32],
        argmax: Option<&mut [f32]>,
    ) {
        let pooled = self.pooled_side() * self.pooled_row();
        // Few images are cut into bands. A band computes one row of the convolution that the band above computes as well.
        let bands = (2 * rayon::current_num_threads()).div_ceil(out.len() / pooled);
        let band = self.pooled_side().div_ceil(bands) * self.pooled_row();
        let argmax: Vec<Option<&mut [f32]>> = match argmax {
            Some(argmax) => in_bands(argmax, pooled, band).map(Some).collect(),
            None => in_bands(out, pooled, band).map(|_| None).collect(),
        };
        let bands: Vec<_> = in_bands(out, pooled, band).zip(argmax).collect();
        let per_image = pooled.div_ceil(band);
        bands
            .into_par_iter()
            .enumerate()
            .for_each(|(i, (out, argmax))| {
                let image = &images[i / per_image * self.image_len()..][..self.image_len()];
                let first = i % per_image * band / self.pooled_row();
                self.band((image, first), weights, out, argmax);
            });
    }

    /// Computes rows of an image's output from `first` on, as many as `out` has.
    fn band(
        &self,
        (image, first): (&[f32], usize),
        weights: (Panels, &[f32]),
        out: &mut [f32],
        mut argmax: Option<&mut [f32]>,
    ) {
        let conv_row = self.conv_row();
        let mut windows = Windows::new(self);
        // The rows under one row of the output. The last row of one is the first of the next.
        let mut activations = Scratch::dirty(3 * conv_row);
        if first > 0 {
            let above = &mut activations[2 * conv_row..];
            windows.multiply(image, 2 * first - 1, weights, above);
        }
        for (i, out) in out.chunks_exact_mut(self.pooled_row()).enumerate() {
            activations.copy_within(2 * conv_row.., 0);
            let inside = self.inside(first + i);
            for y in inside.start.max(1)..inside.end {
                let row = &mut activations[y * conv_row..(y + 1) * conv_row];
                windows.multiply(image, 2 * (first + i) + y - 1, weights, row);
            }
            let rows = WindowRows {
                activations: &activations[inside.start * conv_row..inside.end * conv_row],
                inside,
                channels: self.conv.outputs,
            };
            let at = i * self.pooled_row();
            let argmax = argmax
                .as_mut()
                .map(|argmax| &mut argmax[at..at + self.pooled_row()]);
            pool_row(rows, out, argmax);
        }
    }

    /// Rows of the window of output row `row` that do not lie in the padding.
    fn inside(&self, row: usize) -> Range<usize> {
        usize::from(row == 0)..3.min(self.conv_side() + 1 - 2 * row)
    }

    /// The gradient with respect to the weights, from `images`, the output's gradient and `argmax` of [`Stem::forward`].
    pub(crate) fn weight_gradient(
        &self,
        images: &[f32],
        gradient: &[f32],
        argmax: &[f32],
        out: &mut [f32],
    ) {
        let pooled = self.pooled_side() * self.pooled_row();
        let len = out.len();
        let mut parts = Scratch::zeros(images.len() / self.image_len() * len);
        parts
            .par_chunks_mut(len)
            .zip(images.par_chunks(self.image_len()))
            .zip(gradient.par_chunks(pooled).zip(argmax.par_chunks(pooled)))
            .for_each(|((out, image), (gradient, argmax))| {
                self.image_gradient(image, gradient, argmax, out);
            });
        out.fill(0.0);
        for part in parts.chunks_exact(len) {
            accumulate(out, part);
        }
    }

    fn image_gradient(&self, image: &[f32], gradient: &[f32], argmax: &[f32], out: &mut [f32]) {
        let (side, row) = (self.conv_side(), self.conv_row());
        let mut activations = Scratch::zeros(side * row);
        let pooled = gradient
            .chunks_exact(self.pooled_row())
            .zip(argmax.chunks_exact(self.pooled_row()));
        for (i, (gradient, argmax)) in pooled.enumerate() {
            let top = (2 * i).saturating_sub(1);
            let inside = self.inside(i);
            let rows = WindowRows {
                activations: &mut activations[top * row..(top + inside.len()) * row],
                inside,
                channels: self.conv.outputs,
            };
            pool_row_gradient(rows, gradient, argmax);
        }
        let mut windows = Windows::new(self);
        let columns = self.conv.outputs;
        let rows = (BLOCK / side).max(1);
        let mut right =
            Scratch::dirty(rows * side * columns.div_ceil(panel_width()) * panel_width());
        for (i, part) in activations.chunks(rows * row).enumerate() {
            let first = i * rows;
            windows.gather(image, first..first + part.len() / row);
            pack_blocks(part.chunks_exact(columns), columns, &mut right);
            OuterProductSum {
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

/// Windows of some rows of outputs: `[rows, conv_side, depth]`.
struct Windows<'a> {
    stem: &'a Stem,
    /// The rows of the image under one row of outputs, padded with zeros.
    strip: Scratch,
    values: Scratch,
    pairs: Vec<RowPair>,
}

impl<'a> Windows<'a> {
    fn new(stem: &'a Stem) -> Self {
        let Conv {
            inputs,
            kernel,
            pad,
            ..
        } = stem.conv;
        let rows = (BLOCK / stem.conv_side()).max(1);
        Self {
            stem,
            strip: Scratch::dirty(kernel * (stem.side + 2 * pad) * inputs + COPY),
            values: Scratch::dirty(rows * stem.conv_side() * stem.depth() + COPY),
            pairs: Vec::with_capacity(rows * stem.conv_side()),
        }
    }

    /// Computes row `row` of the convolution with ReLU.
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
            mode: WriteMode::AddRelu,
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
        for x in 0..self.stem.conv_side() {
            let at = self.pairs.len() * self.stem.depth();
            self.pairs.push(RowPair {
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
