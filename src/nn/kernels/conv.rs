//! Convolution of square images: by Winograd's method where it fits, else directly, reading windows in place.
//! Must never know: which layer it is.

use std::ops::Deref;

use rayon::prelude::*;

use super::image::{Frame, Windows};
use super::scratch::Scratch;
use super::tile::{Epilogue, Multiply, Runs, pack_panel, panel_width};
use super::winograd::{four, outputs_of_tile, two};

/// Rows of output that one task computes: the weights pass through the cache once for each.
const TASK_ROWS: usize = 96;

/// A convolution's shape; a fully connected layer is a 1×1 convolution of 1×1 images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) struct Conv {
    pub(in crate::nn) inputs: usize,
    pub(in crate::nn) outputs: usize,
    pub(in crate::nn) kernel: usize,
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) pad: usize,
}

/// Square images in a batch: `[batch, side, side, channels]`.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Images<'a> {
    pub(in crate::nn) data: &'a [f32],
    pub(in crate::nn) side: usize,
}

/// What is done to the sums in the same pass.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Finish<'a> {
    /// One value an output channel.
    pub(in crate::nn) bias: &'a [f32],
    /// Added before the ReLU; laid out as the output.
    pub(in crate::nn) residual: Option<&'a [f32]>,
    /// Whether negative values become zero.
    pub(in crate::nn) relu: bool,
}

impl Conv {
    /// Side of the output for images of `side`.
    pub(in crate::nn) fn output_side(&self, side: usize) -> usize {
        (side + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Number of weights.
    pub(in crate::nn) fn weights(&self) -> usize {
        self.kernel * self.kernel * self.inputs * self.outputs
    }

    pub(super) fn frame(&self, side: usize) -> Frame {
        Frame {
            side,
            channels: self.inputs,
            before: self.pad,
            after: self.pad,
        }
    }

    pub(super) fn windows(&self, side: usize) -> Windows {
        Windows {
            count: self.output_side(side),
            step: self.stride,
            top: 0,
            left: 0,
        }
    }

    /// A window's rows in a framed image.
    pub(super) fn window(&self, frame: Frame) -> Runs {
        let stride = frame.framed_side() * self.inputs;
        Runs {
            count: self.kernel,
            len: self.kernel * self.inputs,
            stride,
        }
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::forward`] on images of `side` into `packed`.
    pub(in crate::nn) fn pack(&self, weights: &[f32], side: usize, packed: &mut Vec<f32>) {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack(weights, packed),
            Some(_) => two(self, side).pack(weights, packed),
            None => self.pack_direct(weights, packed),
        }
    }

    fn pack_direct(&self, weights: &[f32], packed: &mut Vec<f32>) {
        let depth = self.kernel * self.kernel * self.inputs;
        packed.resize(
            self.outputs.div_ceil(panel_width()) * panel_width() * depth,
            0.0,
        );
        packed
            .par_chunks_mut(depth * panel_width())
            .enumerate()
            .for_each(|(panel, packed)| {
                pack_panel(
                    weights.chunks_exact(self.outputs),
                    self.outputs,
                    panel,
                    packed,
                )
            });
    }

    /// Convolves `images` into `out` (`[batch, side', side', outputs]`), with weights from [`Conv::pack`].
    pub(in crate::nn) fn forward(
        &self,
        images: Images,
        packed: &[f32],
        finish: Finish,
        out: &mut [f32],
    ) {
        match outputs_of_tile(self, images.side) {
            Some(4) => four(self, images.side).forward(images, packed, finish, out),
            Some(_) => two(self, images.side).forward(images, packed, finish, out),
            None => self.forward_direct(images, packed, finish, out),
        }
    }

    fn forward_direct(&self, images: Images, packed: &[f32], finish: Finish, out: &mut [f32]) {
        let side = images.side;
        let frame = self.frame(side);
        let framed = self.framed(images.data, frame);
        let offsets = self.windows(images.side).offsets(self.batch(images), frame);
        let task = TASK_ROWS * self.outputs;
        out.par_chunks_mut(task)
            .zip(offsets.par_chunks(TASK_ROWS))
            .enumerate()
            .for_each(|(i, (out, offsets))| {
                let residual = finish
                    .residual
                    .map(|all| &all[i * task..i * task + out.len()]);
                let epilogue = Epilogue {
                    bias: Some(finish.bias),
                    residual,
                    relu: finish.relu,
                };
                let (runs, columns) = (self.window(frame), self.outputs);
                Multiply {
                    data: &framed,
                    offsets,
                    runs,
                    panels: packed,
                    panel_stride: runs.depth() * panel_width(),
                    out,
                    columns,
                    epilogue,
                }
                .run();
            });
    }

    pub(super) fn batch(&self, images: Images) -> usize {
        images.data.len() / (images.side * images.side * self.inputs)
    }

    /// `images` themselves where the convolution needs no frame.
    pub(super) fn framed<'a>(&self, images: &'a [f32], frame: Frame) -> Framed<'a> {
        if self.pad == 0 {
            Framed::Bare(images)
        } else {
            Framed::Padded(frame.pad(images))
        }
    }
}

/// Images with their frame, or as they are.
pub(super) enum Framed<'a> {
    Bare(&'a [f32]),
    Padded(Scratch),
}

impl Deref for Framed<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Self::Bare(images) => images,
            Self::Padded(framed) => framed,
        }
    }
}
