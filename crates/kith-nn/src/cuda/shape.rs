//! How a convolution is computed: as a product of matrices, or by cuDNN and on which shape.

use crate::kernels::Conv;

/// Channels are padded to a multiple of this.
const PIXEL_CHANNELS: usize = 8;
/// Rows of pixels in the channels of the stem's input. With 2, and taps of 4 × 4, it was 4 % slower.
pub(super) const FOLDED_ROWS: usize = 8;
/// Channels of the stem's input after folding.
pub(super) const FOLDED_CHANNELS: usize = 8 * FOLDED_ROWS;
/// Taps of the stem after folding, in a row.
const FOLDED_TAPS: usize = 4;
/// Number of weights of the stem after folding, for each output.
pub(super) const FOLDED_WEIGHTS: usize = FOLDED_TAPS * FOLDED_CHANNELS;

/// A convolution on a batch of images of one size. Its channels are multiples of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) batch: usize,
    /// Height and width of an image.
    pub(super) input: [usize; 2],
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    pub(super) pad: usize,
    /// Channels of the input and of the output.
    pub(super) channels: [usize; 2],
}

impl Shape {
    /// How cuDNN computes `conv` on `batch` images: on padded channels or, if it is the stem, on folded pixels. `side` is the height of its input.
    pub(super) fn new(conv: Conv, side: usize, batch: usize) -> Self {
        if is_folded(&conv) {
            return Self {
                batch,
                input: [side, side + FOLDED_TAPS - 1],
                kernel: [1, FOLDED_TAPS],
                stride: 1,
                pad: 0,
                channels: [FOLDED_CHANNELS, conv.outputs],
            };
        }
        Self {
            batch,
            input: [side; 2],
            kernel: [conv.kernel; 2],
            stride: conv.stride,
            pad: conv.pad,
            channels: [padded_channels(conv.inputs), conv.outputs],
        }
    }

    /// Height and width of an image of the output.
    pub(super) fn output(&self) -> [usize; 2] {
        let size =
            |axis: usize| (self.input[axis] + 2 * self.pad - self.kernel[axis]) / self.stride + 1;
        [size(0), size(1)]
    }

    /// Number of weights.
    pub(super) fn weights(&self) -> usize {
        let numbers = self.kernel.iter().chain(&self.channels);
        numbers.product()
    }
}

/// Whether a convolution is one product of matrices.
pub(super) fn is_product(conv: &Conv) -> bool {
    conv.kernel == 1 && conv.stride == 1
}

/// Whether the forward pass of a convolution is one product of matrices after its pixels are gathered. Its weights are laid out as for cuDNN, which
/// computes the backward pass.
pub(super) fn is_strided_product(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pad) == (1, 2, 0)
}

/// Whether a convolution is computed on folded pixels: the stem.
pub(super) fn is_folded(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pad, conv.inputs) == (7, 2, 3, 3)
}

/// Channels rounded up to what cuDNN's fast kernels take.
pub(super) fn padded_channels(channels: usize) -> usize {
    channels.next_multiple_of(PIXEL_CHANNELS)
}
