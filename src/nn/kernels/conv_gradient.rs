//! The two gradients of the direct convolution.
//! Must never know: which layer it is.
//!
//! With respect to the images, pixels fall into `stride²` classes by the remainder of their position: all pixels of a
//! class meet the same kernel positions, so that each class is a small convolution of the output's gradient, and no
//! multiplication by an inserted zero is ever made.

use rayon::prelude::*;

use super::conv::{Conv, Images};
use super::image::{Frame, Windows};
use super::scratch::Scratch;
use super::tile::{BLOCK, Epilogue, Multiply, OuterSum, Runs, pack_blocks, panel_width};
use super::winograd::{four, outputs_of_tile, two};

/// Weight rows that one task sums.
const TASK_VALUES: usize = 36;
/// Images a task of the input gradient works on, at least this many rows.
const TASK_ROWS: usize = 96;

/// Where the gradient with respect to images goes.
pub(in crate::nn) struct Target<'a> {
    /// Weights from [`Conv::pack_transposed`].
    pub(in crate::nn) packed: &'a [f32],
    /// Laid out as the images.
    pub(in crate::nn) data: &'a mut [f32],
    /// Whether it is added to what is there.
    pub(in crate::nn) add: bool,
}

/// Kernel positions that meet input positions with one remainder, in one direction.
#[derive(Clone, Copy)]
struct Taps {
    /// The last kernel position; the others are `stride`, `2·stride`, … before it.
    last: usize,
    count: usize,
    /// Output position that `last` pairs with the first input position of the class.
    first_output: isize,
}

impl Conv {
    fn taps(&self, remainder: usize) -> Taps {
        let lowest = (remainder + self.pad) % self.stride;
        let count = (self.kernel + self.stride - 1 - lowest) / self.stride;
        let last = (lowest + count * self.stride).saturating_sub(self.stride);
        let first_output =
            (remainder as isize + self.pad as isize - last as isize) / self.stride as isize;
        Taps {
            last,
            count,
            first_output,
        }
    }

    fn classes(&self) -> impl Iterator<Item = (usize, usize)> {
        let stride = self.stride;
        (0..stride * stride).map(move |class| (class / stride, class % stride))
    }

    fn class_len(&self, (row, column): (usize, usize)) -> usize {
        let depth = self.taps(row).count * self.taps(column).count * self.outputs;
        depth * self.inputs.div_ceil(panel_width()) * panel_width()
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::gradients`] into `packed`.
    pub(in crate::nn) fn pack_transposed(
        &self,
        weights: &[f32],
        side: usize,
        packed: &mut Vec<f32>,
    ) {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack_transposed(weights, packed),
            Some(_) => two(self, side).pack_transposed(weights, packed),
            None => self.pack_classes(weights, packed),
        }
    }

    fn pack_classes(&self, weights: &[f32], packed: &mut Vec<f32>) {
        packed.resize(self.classes().map(|class| self.class_len(class)).sum(), 0.0);
        let mut rest = packed.as_mut_slice();
        for class in self.classes() {
            let (mine, others) = rest.split_at_mut(self.class_len(class));
            rest = others;
            let panels = self.inputs.div_ceil(panel_width());
            if !mine.is_empty() {
                let panel_len = mine.len() / panels;
                mine.par_chunks_mut(panel_len)
                    .enumerate()
                    .for_each(|(panel, packed)| {
                        self.pack_class_panel(weights, class, panel, packed)
                    });
            }
        }
    }

    fn pack_class_panel(
        &self,
        weights: &[f32],
        class: (usize, usize),
        panel: usize,
        packed: &mut [f32],
    ) {
        let (rows, columns) = (self.taps(class.0), self.taps(class.1));
        let width = panel_width();
        let inputs = panel * width..self.inputs.min((panel + 1) * width);
        packed.fill(0.0);
        for (tap, packed) in packed.chunks_exact_mut(self.outputs * width).enumerate() {
            let y = rows.last - tap / columns.count * self.stride;
            let x = columns.last - tap % columns.count * self.stride;
            for (lane, input) in inputs.clone().enumerate() {
                let from = ((y * self.kernel + x) * self.inputs + input) * self.outputs;
                let row = &weights[from..from + self.outputs];
                for (value, packed) in row.iter().zip(packed.chunks_exact_mut(width)) {
                    packed[lane] = *value;
                }
            }
        }
    }

    /// Zeros that the output's gradient needs before and after it for all classes to find their window.
    fn gradient_frame(&self, side: usize) -> Frame {
        let output_side = self.output_side(side) as isize;
        let taps = (0..self.stride)
            .map(|remainder| self.taps(remainder))
            .filter(|taps| taps.count > 0);
        let (mut before, mut after) = (0, 0);
        for taps in taps {
            before = before.max(-taps.first_output);
            let last_output = taps.first_output + (side / self.stride + taps.count) as isize - 2;
            after = after.max(last_output - output_side + 1);
        }
        let (side, before, after) = (output_side as usize, before as usize, after as usize);
        Frame {
            side,
            channels: self.outputs,
            before,
            after,
        }
    }

    /// The gradients with respect to the weights (written to `weights`) and, if wanted, to the images (whose side must
    /// be a multiple of the stride), from `images` and the output's gradient (`[batch, side', side', outputs]`).
    pub(in crate::nn) fn gradients(
        &self,
        images: Images,
        gradient: &[f32],
        weights: &mut [f32],
        target: Option<Target>,
    ) {
        match outputs_of_tile(self, images.side) {
            Some(4) => four(self, images.side).gradients(images, gradient, weights, target),
            Some(_) => two(self, images.side).gradients(images, gradient, weights, target),
            None => {
                self.weight_gradient(images, gradient, weights);
                if let Some(target) = target {
                    self.input_gradient(gradient, images.side, target);
                }
            }
        }
    }

    fn input_gradient(&self, gradient: &[f32], side: usize, target: Target) {
        debug_assert_eq!(side % self.stride, 0);
        let Target { packed, data, add } = target;
        let frame = self.gradient_frame(side);
        let images = TASK_ROWS.div_ceil(frame.side * frame.side);
        data.par_chunks_mut(images * side * side * self.inputs)
            .zip(gradient.par_chunks(images * frame.side * frame.side * self.outputs))
            .for_each(|(data, gradient)| {
                let framed = frame.pad(gradient);
                let mut rest = packed;
                for class in self.classes() {
                    let (panels, others) = rest.split_at(self.class_len(class));
                    rest = others;
                    let sums = self.class_gradient(class, (&framed, frame), side, panels);
                    self.place(class, &sums, (data, side), add);
                }
            });
    }

    /// The gradients of a class of pixels: `[batch, side / stride, side / stride, inputs]`.
    fn class_gradient(
        &self,
        class: (usize, usize),
        framed: (&[f32], Frame),
        side: usize,
        panels: &[f32],
    ) -> Scratch {
        let (data, frame) = framed;
        let (rows, columns) = (self.taps(class.0), self.taps(class.1));
        let (count, batch) = (side / self.stride, data.len() / frame.framed_len());
        let mut sums = Scratch::zeros(batch * count * count * self.inputs);
        if !panels.is_empty() {
            let start = |taps: Taps| (taps.first_output + frame.before as isize) as usize;
            let windows = Windows {
                count,
                step: 1,
                top: start(rows),
                left: start(columns),
            };
            let offsets = &windows.offsets(batch, frame);
            let stride = frame.framed_side() * self.outputs;
            let runs = Runs {
                count: rows.count,
                len: columns.count * self.outputs,
                stride,
            };
            let (out, epilogue) = (&mut sums[..], Epilogue::default());
            Multiply {
                data,
                offsets,
                runs,
                panels,
                panel_stride: runs.depth() * panel_width(),
                out,
                columns: self.inputs,
                epilogue,
            }
            .run();
        }
        sums
    }

    /// Puts a class's pixels where they belong in images of a side.
    fn place(&self, class: (usize, usize), sums: &[f32], images: (&mut [f32], usize), add: bool) {
        let (data, side) = images;
        let (count, step) = (side / self.stride, self.stride);
        let pixels = Windows {
            count,
            step,
            top: class.0,
            left: class.1,
        };
        let whole = Frame {
            side,
            channels: self.inputs,
            before: 0,
            after: 0,
        };
        let batch = data.len() / whole.framed_len();
        for (sums, at) in sums
            .chunks_exact(self.inputs)
            .zip(pixels.offsets(batch, whole))
        {
            let out = &mut data[at..at + self.inputs];
            if add {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            } else {
                out.copy_from_slice(sums);
            }
        }
    }

    fn weight_gradient(&self, images: Images, gradient: &[f32], out: &mut [f32]) {
        let side = images.side;
        let frame = self.frame(side);
        let framed = self.framed(images.data, frame);
        let offsets = self.windows(images.side).offsets(self.batch(images), frame);
        let right = pack_all(gradient, self.outputs);
        out.fill(0.0);
        let mut tasks = Vec::new();
        let mut rest = out;
        for (start, values) in self.weight_tasks(self.window(frame)) {
            let (mine, others) = rest.split_at_mut(values * self.outputs);
            tasks.push((start, mine));
            rest = others;
        }
        tasks.into_par_iter().for_each(|(start, out)| {
            OuterSum {
                data: &framed,
                offsets: &offsets,
                start,
                right: &right,
                out,
                columns: self.outputs,
            }
            .run();
        });
    }

    /// (where in the window, how many values): pieces of the window's rows, of even size.
    fn weight_tasks(&self, window: Runs) -> Vec<(usize, usize)> {
        let pieces = window.len.div_ceil(TASK_VALUES);
        let cut = |piece: usize| piece * window.len / pieces;
        (0..window.count)
            .flat_map(|run| {
                (0..pieces).map(move |i| (run * window.stride + cut(i), cut(i + 1) - cut(i)))
            })
            .collect()
    }
}

/// Packs all rows of the right-hand side for [`OuterSum`].
fn pack_all(rows: &[f32], columns: usize) -> Scratch {
    let width = columns.div_ceil(panel_width()) * panel_width();
    let mut packed = Scratch::dirty(rows.len() / columns * width);
    packed
        .par_chunks_mut(BLOCK * width)
        .zip(rows.par_chunks(BLOCK * columns))
        .for_each(|(packed, rows)| pack_blocks(rows.chunks_exact(columns), columns, packed));
    packed
}
