//! The direct convolution in both directions, and its weights' gradient: each kernel position adds one matrix product
//! over the pixels that meet there.
//! Must never know: which layer it is.
//!
//! With respect to the images the gradient is the same computation with the two sides of each meeting exchanged. Pixels
//! outside the image meet nothing, so no zero is ever multiplied: on a map of 3×3 that saves two products of five.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::{Conv, Finish, Images};
use super::scratch::{Scratch, take};
use super::tile::{
    BLOCK, Columns, Multiply, OuterSum, Pair, Put, pack_blocks, pack_panel, panel_width,
};
use super::weights::{Packed, Panels};

/// Rows of output that one task computes: the weights pass through the cache once for each.
const TASK_ROWS: usize = 96;
/// Input channels whose weights' gradient one task sums.
const TASK_INPUTS: usize = 36;

/// Where the gradient with respect to images goes.
pub(crate) struct Target<'a> {
    /// Makes the weights of [`Conv::pack_transposed`]. Called when all that the weights' gradient needed is free again, if it can be: both
    /// at once would take more than the layer's maps.
    pub(crate) pack: &'a dyn Fn() -> Packed,
    /// Laid out as the images.
    pub(crate) data: &'a mut [f32],
    /// Whether it is added to what is there.
    pub(crate) add: bool,
}

impl Conv {
    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Output positions, in one direction, that meet an input position through kernel position `at`.
    fn meeting(&self, side: usize, at: usize) -> Range<usize> {
        let first = self.pad.saturating_sub(at).div_ceil(self.stride);
        let end = (side + self.pad).saturating_sub(at).div_ceil(self.stride);
        first..end.min(self.output_side(side)).max(first)
    }

    /// (input pixel, output pixel) that meet through `tap`, in all of `images` images.
    fn meetings(
        &self,
        side: usize,
        images: usize,
        tap: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let (y, x) = (tap / self.kernel, tap % self.kernel);
        let (rows, columns) = (self.meeting(side, y), self.meeting(side, x));
        let (out_side, stride, pad) = (self.output_side(side), self.stride, self.pad);
        (0..images).flat_map(move |image| {
            let columns = columns.clone();
            rows.clone().flat_map(move |row| {
                let input = (image * side + row * stride + y - pad) * side;
                let output = (image * out_side + row) * out_side;
                columns
                    .clone()
                    .map(move |column| (input + column * stride + x - pad, output + column))
            })
        })
    }

    /// `[panel of outputs][tap][inputs][panel_width]`.
    pub(super) fn pack_direct(&self, weights: &[f32]) -> Vec<f32> {
        let panel_len = self.taps() * self.inputs * panel_width();
        let mut packed = take(self.outputs.div_ceil(panel_width()) * panel_len);
        packed
            .par_chunks_mut(panel_len)
            .enumerate()
            .for_each(|(panel, packed)| {
                pack_panel(
                    weights.chunks_exact(self.outputs),
                    self.outputs,
                    panel,
                    packed,
                )
            });
        packed
    }

    /// `[panel of inputs][tap][outputs][panel_width]`.
    pub(super) fn pack_direct_transposed(&self, weights: &[f32]) -> Vec<f32> {
        let panel_len = self.taps() * self.outputs * panel_width();
        let mut packed = take(self.inputs.div_ceil(panel_width()) * panel_len);
        packed
            .par_chunks_mut(panel_len)
            .enumerate()
            .for_each(|(panel, packed)| self.pack_transposed_panel(weights, panel, packed));
        packed
    }

    /// `[tap][outputs][panel_width]`: the columns are input channels, those that do not exist zero.
    pub(super) fn pack_transposed_panel(&self, weights: &[f32], panel: usize, packed: &mut [f32]) {
        let width = panel_width();
        let first = panel * width;
        packed.fill(0.0);
        for (tap, packed) in packed.chunks_exact_mut(self.outputs * width).enumerate() {
            for lane in 0..width.min(self.inputs - first) {
                let row = &weights[(tap * self.inputs + first + lane) * self.outputs..];
                for (value, packed) in row[..self.outputs]
                    .iter()
                    .zip(packed.chunks_exact_mut(width))
                {
                    packed[lane] = *value;
                }
            }
        }
    }

    pub(super) fn forward_direct(
        &self,
        images: Images,
        packed: Panels,
        finish: Finish,
        out: &mut [f32],
    ) {
        let begin = |at: usize, row: &mut [f32]| {
            let column = at % self.outputs;
            row.copy_from_slice(&finish.bias[column..column + row.len()]);
            if let Some(residual) = finish.residual {
                let residual = &residual[at..at + row.len()];
                row.iter_mut().zip(residual).for_each(|(a, b)| *a += b);
            }
        };
        let pass = Pass {
            conv: self,
            side: images.side,
            backward: false,
            data: images.data,
            panels: packed,
            relu: finish.relu,
        };
        pass.run(out, begin);
    }

    /// The gradient with respect to images of `side`.
    pub(super) fn input_gradient(&self, gradient: &[f32], side: usize, target: Target) {
        let Target { pack, data, add } = target;
        let packed = pack();
        let pass = Pass {
            conv: self,
            side,
            backward: true,
            data: gradient,
            panels: packed.panels(),
            relu: false,
        };
        pass.run(data, |_, row| {
            if !add {
                row.fill(0.0);
            }
        });
    }

    /// The gradient with respect to the weights.
    pub(super) fn weight_gradient(&self, images: Images, gradient: &[f32], out: &mut [f32]) {
        let batch = self.batch(images);
        out.fill(0.0);
        let mut pairs = Vec::new();
        for (tap, out) in out.chunks_exact_mut(self.inputs * self.outputs).enumerate() {
            pairs.clear();
            pairs.extend(
                self.meetings(images.side, batch, tap)
                    .map(|(input, output)| Pair {
                        from: input * self.inputs,
                        to: output,
                    }),
            );
            let right = pack_met(&pairs, gradient, self.outputs);
            out.par_chunks_mut(TASK_INPUTS * self.outputs)
                .enumerate()
                .for_each(|(i, out)| {
                    OuterSum {
                        data: images.data,
                        pairs: &pairs,
                        start: i * TASK_INPUTS,
                        right: &right,
                        out,
                        columns: self.outputs,
                    }
                    .run();
                });
        }
    }
}

/// Packs the output's side of `pairs` for [`OuterSum`].
fn pack_met(pairs: &[Pair], gradient: &[f32], columns: usize) -> Scratch {
    let width = columns.div_ceil(panel_width()) * panel_width();
    let mut packed = Scratch::dirty(pairs.len() * width);
    packed
        .par_chunks_mut(BLOCK * width)
        .zip(pairs.par_chunks(BLOCK))
        .for_each(|(packed, pairs)| {
            let rows = pairs
                .iter()
                .map(|pair| &gradient[pair.to * columns..][..columns]);
            pack_blocks(rows, columns, packed);
        });
    packed
}

/// Pixels of one side of a convolution multiplied into those of the other.
struct Pass<'a> {
    conv: &'a Conv,
    /// Of the convolution's input.
    side: usize,
    /// From the output's side to the input's.
    backward: bool,
    data: &'a [f32],
    panels: Panels<'a>,
    relu: bool,
}

/// What one task computes: some channels of the pixels of some images.
struct Task<'a> {
    /// Of all images.
    first_image: usize,
    images: usize,
    first_column: usize,
    /// Those channels of each pixel.
    rows: Vec<&'a mut [f32]>,
}

impl Pass<'_> {
    /// Adds all products to `out`, after `begin` has set each row; `begin` is told where the row starts in `out`.
    fn run(&self, out: &mut [f32], begin: impl Fn(usize, &mut [f32]) + Sync) {
        let (pixels, columns) = (self.pixels(!self.backward), self.columns());
        self.tasks(out).into_par_iter().for_each(|mut task| {
            for (i, row) in task.rows.iter_mut().enumerate() {
                let at = (task.first_image * pixels + i) * columns + task.first_column;
                begin(at, row);
            }
            self.compute(task);
        });
    }

    /// Values of a pixel that is read.
    fn depth(&self) -> usize {
        if self.backward {
            self.conv.outputs
        } else {
            self.conv.inputs
        }
    }

    /// Values of a pixel that is written.
    fn columns(&self) -> usize {
        if self.backward {
            self.conv.inputs
        } else {
            self.conv.outputs
        }
    }

    /// Pixels of an image on the convolution's output side, or its input side.
    fn pixels(&self, output: bool) -> usize {
        let side = if output {
            self.conv.output_side(self.side)
        } else {
            self.side
        };
        side * side
    }

    /// Blocks of images; few blocks are cut by channels too, so that each thread streams weights of its own.
    fn tasks<'a>(&self, out: &'a mut [f32]) -> Vec<Task<'a>> {
        let (pixels, columns) = (self.pixels(!self.backward), self.columns());
        let images = TASK_ROWS.div_ceil(pixels);
        let block_len = images * pixels * columns;
        let wanted = (2 * rayon::current_num_threads()).div_ceil(out.len().div_ceil(block_len));
        let panels = columns.div_ceil(panel_width());
        let width = panels.div_ceil(wanted.clamp(1, panels)) * panel_width();
        let mut tasks = Vec::new();
        for (block, out) in out.chunks_mut(block_len).enumerate() {
            let first = tasks.len();
            let rows = out.len() / columns;
            tasks.extend((0..columns).step_by(width).map(|first_column| Task {
                first_image: block * images,
                images: rows / pixels,
                first_column,
                rows: Vec::with_capacity(rows),
            }));
            for row in out.chunks_exact_mut(columns) {
                for (task, part) in tasks[first..].iter_mut().zip(row.chunks_mut(width)) {
                    task.rows.push(part);
                }
            }
        }
        tasks
    }

    fn compute(&self, mut task: Task) {
        let depth = self.depth();
        let tap_len = depth * panel_width();
        let panel_stride = self.conv.taps() * tap_len;
        let panels = self
            .panels
            .skip(task.first_column / panel_width() * panel_stride);
        let read = self.pixels(self.backward) * depth;
        let data = &self.data[task.first_image * read..];
        let columns = task.rows.first().map_or(0, |row| row.len());
        // The middle meets every output pixel: what comes last can finish all of them.
        let middle = self.conv.pad * self.conv.kernel + self.conv.pad;
        let others = (0..self.conv.taps()).filter(|&tap| tap != middle);
        let taps: Vec<(usize, Vec<Pair>)> = others
            .chain([middle])
            .map(|tap| (tap, self.pairs(task.images, tap).collect()))
            .collect();
        // In the order in which the weights lie: a small batch waits for them.
        for first in (0..columns).step_by(panel_width()) {
            let width = panel_width().min(columns - first);
            let mut out = Columns {
                rows: &mut task.rows,
                columns: first..first + width,
            };
            for (tap, pairs) in &taps {
                Multiply {
                    data,
                    pairs,
                    depth,
                    panels: panels.skip(first / panel_width() * panel_stride + tap * tap_len),
                    panel_stride,
                    out: &mut out,
                    columns: width,
                    put: if self.relu && *tap == middle {
                        Put::AddRelu
                    } else {
                        Put::Add
                    },
                }
                .run();
            }
        }
    }

    fn pairs(&self, images: usize, tap: usize) -> impl Iterator<Item = Pair> {
        let meetings = self.conv.meetings(self.side, images, tap);
        let (backward, depth) = (self.backward, self.depth());
        meetings.map(move |(input, output)| {
            let (from, to) = if backward {
                (output, input)
            } else {
                (input, output)
            };
            Pair {
                from: from * depth,
                to,
            }
        })
    }
}
