//! The shapes of convolutions and the arrays that they read and write.

use super::weights::Packed;

/// The shape of a convolution, with `kernel = 2 · pad + 1`. A fully connected layer is a 1×1 convolution of 1×1 images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conv {
    /// Input channels.
    pub(crate) inputs: usize,
    /// Output channels.
    pub(crate) outputs: usize,
    /// Side of the square kernel.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) pad: usize,
}

impl Conv {
    /// Side of the output for images of `side`.
    pub(crate) fn output_side(&self, side: usize) -> usize {
        (side + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.taps() * self.inputs * self.outputs
    }

    /// Positions of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Number of images in `images`.
    pub(super) fn batch(&self, images: Images) -> usize {
        images.data.len() / (images.side * images.side * self.inputs)
    }
}

/// A batch of square images: `[batch, side, side, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) side: usize,
}

/// What a convolution applies to its sums in the same pass.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    /// One value for each output channel.
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU. It has the output's shape.
    pub(crate) residual: Option<&'a [f32]>,
    /// Whether negative values become zero.
    pub(crate) relu: bool,
}

/// Where the gradient with respect to a convolution's input goes.
pub(crate) struct InputGradient<'a> {
    /// Makes the weights of [`Conv::pack_transposed`]. It is called after the buffers of the weights' gradient are free again where that
    /// is possible: both at once would take more memory than the layer's activations.
    pub(crate) pack: &'a dyn Fn() -> Packed,
    /// It has the shape of the images.
    pub(crate) data: &'a mut [f32],
    /// Whether the gradient is added to what `data` holds.
    pub(crate) accumulate: bool,
}
