//! Convolution of square images and its gradients: by Winograd's method where it fits, otherwise directly.

use super::shapes::{Conv, Epilogue, Images, InputGradient};
use super::weights::Panels;
use super::winograd::{F2x3, F4x3, Tiling, outputs_of_tile};

/// How a convolution is computed for images of one side.
enum Method {
    F4x3(Tiling<F4x3>),
    F2x3(Tiling<F2x3>),
    Direct,
}

impl Conv {
    fn method(&self, side: usize) -> Method {
        match outputs_of_tile(self, side) {
            Some(4) => Method::F4x3(Tiling::new(self, side)),
            Some(_) => Method::F2x3(Tiling::new(self, side)),
            None => Method::Direct,
        }
    }

    /// Whether weights packed for images of one side are those for another.
    pub(crate) fn packs_alike(&self, side: usize, other: usize) -> bool {
        outputs_of_tile(self, side) == outputs_of_tile(self, other)
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::forward`] on images of `side`.
    pub(crate) fn pack(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match self.method(side) {
            Method::F4x3(tiling) => tiling.pack(weights),
            Method::F2x3(tiling) => tiling.pack(weights),
            Method::Direct => self.pack_direct(weights),
        }
    }

    /// Packs `weights` (`[kernel, kernel, inputs, outputs]`) for [`Conv::gradients`] on images of `side`.
    pub(crate) fn pack_transposed(&self, weights: &[f32], side: usize) -> Vec<f32> {
        match self.method(side) {
            Method::F4x3(tiling) => tiling.pack_transposed(weights),
            Method::F2x3(tiling) => tiling.pack_transposed(weights),
            Method::Direct => self.pack_direct_transposed(weights),
        }
    }

    /// Convolves `images` into `out` (`[batch, side', side', outputs]`), with weights from [`Conv::pack`].
    pub(crate) fn forward(
        &self,
        images: Images,
        packed: Panels,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        match self.method(images.side) {
            Method::F4x3(tiling) => tiling.forward(images, packed, epilogue, out),
            Method::F2x3(tiling) => tiling.forward(images, packed, epilogue, out),
            Method::Direct => self.forward_direct(images, packed, epilogue, out),
        }
    }

    /// The gradients with respect to the weights (written to `weights`) and to the images (written to `input`), from `images` and
    /// the output's gradient (`[batch, side', side', outputs]`).
    pub(crate) fn gradients(
        &self,
        images: Images,
        gradient: &[f32],
        weights: &mut [f32],
        input: InputGradient,
    ) {
        match self.method(images.side) {
            Method::F4x3(tiling) => tiling.gradients(images, gradient, weights, input),
            Method::F2x3(tiling) => tiling.gradients(images, gradient, weights, input),
            Method::Direct => {
                self.weight_gradient(images, gradient, weights);
                self.input_gradient(gradient, images.side, input);
            }
        }
    }
}
