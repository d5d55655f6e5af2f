//! Convolution of square images and its gradients: by Winograd's method where it fits, else directly.
//! Must never know: which layer it is.

use super::direct::Target;
use super::weights::Panels;
use super::winograd::{four, outputs_of_tile, two};

/// A convolution's shape, with `kernel = 2 · pad + 1`; a fully connected layer is a 1×1 convolution of 1×1 images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    pub(super) fn batch(&self, images: Images) -> usize {
        images.data.len() / (images.side * images.side * self.inputs)
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::forward`] on images of `side`.
    pub(in crate::nn) fn pack(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack(weights),
            Some(_) => two(self, side).pack(weights),
            None => self.pack_direct(weights),
        }
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::gradients`] on images of `side`.
    pub(in crate::nn) fn pack_transposed(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack_transposed(weights),
            Some(_) => two(self, side).pack_transposed(weights),
            None => self.pack_direct_transposed(weights),
        }
    }

    /// Convolves `images` into `out` (`[batch, side', side', outputs]`), with weights from [`Conv::pack`].
    pub(in crate::nn) fn forward(
        &self,
        images: Images,
        packed: Panels,
        finish: Finish,
        out: &mut [f32],
    ) {
        match outputs_of_tile(self, images.side) {
            Some(4) => four(self, images.side).forward(images, packed, finish, out),
            Some(_) => two(self, images.side).forward(images, packed, finish, out),
            None => self.forward_direct(images, packed, finish, out),
        }
    }

    /// The gradients with respect to the weights (written to `weights`) and to the images, from `images` and the
    /// output's gradient (`[batch, side', side', outputs]`).
    pub(in crate::nn) fn gradients(
        &self,
        images: Images,
        gradient: &[f32],
        weights: &mut [f32],
        target: Target,
    ) {
        match outputs_of_tile(self, images.side) {
            Some(4) => four(self, images.side).gradients(images, gradient, weights, target),
            Some(_) => two(self, images.side).gradients(images, gradient, weights, target),
            None => {
                self.weight_gradient(images, gradient, weights);
                self.input_gradient(gradient, images.side, target);
            }
        }
    }
}
