//! Convolution of square images and its gradients: by Winograd's method where it fits, else directly.
//! Must never know: which layer it is.

use super::direct::Target;
use super::weights::Panels;
use super::winograd::{four, outputs_of_tile, two};

/// A convolution's shape, with `kernel = 2 · pad + 1`; a fully connected layer is a 1×1 convolution of 1×1 images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conv {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) pad: usize,
}

/// Square images in a batch: `[batch, side, side, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) side: usize,
}

/// What is done to the sums in the same pass.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// One value an output channel.
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; laid out as the output.
    pub(crate) residual: Option<&'a [f32]>,
    /// Whether negative values become zero.
    pub(crate) relu: bool,
}

impl Conv {
    /// Side of the output for images of `side`.
    pub(crate) fn output_side(&self, side: usize) -> usize {
        (side + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.kernel * self.kernel * self.inputs * self.outputs
    }

    pub(super) fn batch(&self, images: Images) -> usize {
        images.data.len() / (images.side * images.side * self.inputs)
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::forward`] on images of `side`.
    pub(crate) fn pack(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack(weights),
            Some(_) => two(self, side).pack(weights),
            None => self.pack_direct(weights),
        }
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::gradients`] on images of `side`.
    pub(crate) fn pack_transposed(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match outputs_of_tile(self, side) {
            Some(4) => four(self, side).pack_transposed(weights),
            Some(_) => two(self, side).pack_transposed(weights),
            None => self.pack_direct_transposed(weights),
        }
    }

    /// Convolves `images` into `out` (`[batch, side', side', outputs]`), with weights from [`Conv::pack`].
    pub(crate) fn forward(&self, images: Images, packed: Panels, finish: Finish, out: &mut [f32]) {
        match outputs_of_tile(self, images.side) {
            Some(4) => four(self, images.side).forward(images, packed, finish, out),
            Some(_) => two(self, images.side).forward(images, packed, finish, out),
            None => self.forward_direct(images, packed, finish, out),
        }
    }

    /// The gradients with respect to the weights (written to `weights`) and to the images, from `images` and the
    /// output's gradient (`[batch, side', side', outputs]`).
    pub(crate) fn gradients(
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
