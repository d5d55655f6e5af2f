//! The direct convolution in both directions, and its weights' gradient: each kernel position (tap) adds one matrix product over the pairs of
//! an input and an output pixel that it connects.
//!
//! The gradient with respect to the images is the same computation with input and output exchanged. Padding is in no pair, so no zero is
//! multiplied: on images of 3×3 that saves two products of five.

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::accumulate;
use super::scratch::{Scratch, take};
use super::shapes::{Conv, Epilogue, Images, InputGradient};
use super::simd::panel_width;
use super::tile::{
    BLOCK, Columns, Multiply, OuterProductSum, RowPair, WriteMode, pack_blocks, pack_panel,
};
use super::weights::Panels;

/// Rows of output in a task. The weights pass through the cache once for each task.
const TASK_ROWS: usize = 96;
/// Input channels in a task of the weights' gradient.
const TASK_INPUTS: usize = 36;

impl Conv {
    /// Output positions, along one direction, that kernel position `at` connects with an input position.
    fn connected_range(&self, side: usize, at: usize) -> Range<usize> {
        let first = self.pad.saturating_sub(at).div_ceil(self.stride);
        let end = (side + self.pad).saturating_sub(at).div_ceil(self.stride);
        first..end.min(self.output_side(side)).max(first)
    }

    /// The pairs (input pixel, output pixel) that `tap` connects, in all of `images` images.
    fn connected_pixels(
        &self,
        side: usize,
        images: usize,
        tap: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let (y, x) = (tap / self.kernel, tap % self.kernel);
        let (rows, columns) = (self.connected_range(side, y), self.connected_range(side, x));
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

    /// Packs weights for [`Conv::forward_direct`]: `[panel of outputs][tap][inputs][panel_width]`.
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

    /// Packs weights for [`Conv::input_gradient`]: `[panel of inputs][tap][outputs][panel_width]`.
    pub(super) fn pack_direct_transposed(&self, weights: &[f32]) -> Vec<f32> {
        let panel_len = self.taps() * self.outputs * panel_width();
        let mut packed = take(self.inputs.div_ceil(panel_width()) * panel_len);
        packed
            .par_chunks_mut(panel_len)
            .enumerate()
            .for_each(|(panel, packed)| self.pack_transposed_panel(weights, panel, packed));
        packed
    }

    /// Packs one panel: `[tap][outputs][panel_width]`. The columns are input channels; missing ones are zero.
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

    /// As [`Conv::forward`].
    pub(super) fn forward_direct(
        &self,
        images: Images,
        packed: Panels,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        let init_row = |at: usize, row: &mut [f32]| {
            let column = at % self.outputs;
            row.copy_from_slice(&epilogue.bias[column..column + row.len()]);
            if let Some(residual) = epilogue.residual {
                let residual = &residual[at..at + row.len()];
                accumulate(row, residual);
            }
        };
        let pass = DirectPass {
            conv: self,
            side: images.side,
            backward: false,
            data: images.data,
            panels: packed,
            relu: epilogue.relu,
        };
        pass.run(out, init_row);
    }

    /// The gradient with respect to images of `side`, from the output's gradient.
    pub(super) fn input_gradient(&self, gradient: &[f32], side: usize, input: InputGradient) {
        let InputGradient {
            pack,
            data,
            accumulate,
        } = input;
        let packed = pack();
        let pass = DirectPass {
            conv: self,
            side,
            backward: true,
            data: gradient,
            panels: packed.panels(),
            relu: false,
        };
        pass.run(data, |_, row| {
            if !accumulate {
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
                self.connected_pixels(images.side, batch, tap)
                    .map(|(input, output)| RowPair {
                        from: input * self.inputs,
                        to: output,
                    }),
            );
            let right = pack_outputs(&pairs, gradient, self.outputs);
            out.par_chunks_mut(TASK_INPUTS * self.outputs)
                .enumerate()
                .for_each(|(i, out)| {
                    OuterProductSum {
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

/// Packs the output pixels of `pairs` for [`OuterProductSum`].
fn pack_outputs(pairs: &[RowPair], gradient: &[f32], columns: usize) -> Scratch {
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

/// A convolution, or the gradient of its input.
struct DirectPass<'a> {
    conv: &'a Conv,
    /// Side of the convolution's input.
    side: usize,
    /// Whether it computes the input's gradient from the output's.
    backward: bool,
    data: &'a [f32],
    panels: Panels<'a>,
    relu: bool,
}

/// Some channels of the pixels of some images, computed by one task.
struct Task<'a> {
    /// Index among all images.
    first_image: usize,
    images: usize,
    first_column: usize,
    /// The task's channels of each pixel.
    rows: Vec<&'a mut [f32]>,
}

impl DirectPass<'_> {
    /// Adds all products to `out`, each row of which `init_row` sets first. It is called with the index of the row's first value in `out`.
    fn run(&self, out: &mut [f32], init_row: impl Fn(usize, &mut [f32]) + Sync) {
        let (pixels, columns) = (self.pixels(!self.backward), self.columns());
        self.tasks(out).into_par_iter().for_each(|mut task| {
            for (i, row) in task.rows.iter_mut().enumerate() {
                let at = (task.first_image * pixels + i) * columns + task.first_column;
                init_row(at, row);
            }
            self.compute(task);
        });
    }

    /// Channels of a pixel that is read.
    fn depth(&self) -> usize {
        if self.backward {
            self.conv.outputs
        } else {
            self.conv.inputs
        }
    }

    /// Channels of a pixel that is written.
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

    /// Cuts `out` into blocks of images. Few blocks are cut by channels too, so that each thread streams weights of its own.
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
        // The middle tap connects every output pixel. As the last one it can apply the ReLU.
        let middle = self.conv.pad * self.conv.kernel + self.conv.pad;
        let others = (0..self.conv.taps()).filter(|&tap| tap != middle);
        let taps: Vec<(usize, Vec<RowPair>)> = others
            .chain([middle])
            .map(|tap| (tap, self.pairs(task.images, tap).collect()))
            .collect();
        // In the order in which the weights lie in memory: a small batch waits for them.
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
                    mode: if self.relu && *tap == middle {
                        WriteMode::AddRelu
                    } else {
                        WriteMode::Add
                    },
                }
                .run();
            }
        }
    }

    fn pairs(&self, images: usize, tap: usize) -> impl Iterator<Item = RowPair> {
        let pixels = self.conv.connected_pixels(self.side, images, tap);
        let (backward, depth) = (self.backward, self.depth());
        pixels.map(move |(input, output)| {
            let (from, to) = if backward {
                (output, input)
            } else {
                (input, output)
            };
            RowPair {
                from: from * depth,
                to,
            }
        })
    }
}
