//! CPU kernels of the encoder: they read and write plain slices, vectorised for the processor that they run on.
//!
//! Images are `[batch, height, width, channels]`, convolution weights `[kernel, kernel, inputs, outputs]`. The kernels run on the
//! caller's rayon pool. Every sum is taken in an order that depends on shapes alone. So a result is the same, bit for bit, for any number
//! of threads, and an image's output does not depend on the other images of its batch.

mod background;
mod conv;
mod direct;
mod elementwise;
mod huge_pages;
mod matrix;
mod pool;
mod prefetch;
pub(super) mod scratch;
mod shapes;
mod simd;
mod stem;
mod tile;
mod weights;
mod winograd;

pub use background::compute_in_background;
pub(super) use background::yield_point;
#[cfg(any(test, feature = "cuda"))]
pub(super) use elementwise::EPSILON;
pub(super) use elementwise::{
    add, blend, clip_columns, column_squares, mask, mean, mean_gradient, normalize,
    normalize_gradient, sum_rows, sum_squares,
};
pub use matrix::{product, product_with_transposed, transposed_product};
#[cfg(test)]
pub(super) use pool::{WindowRows, pool_row, pool_row_gradient, pooled_side};
pub(super) use shapes::{Conv, Epilogue, Images, InputGradient};
pub(super) use stem::Stem;
pub(super) use weights::{Packed, Panels};
#[cfg(test)]
pub(super) use winograd::outputs_of_tile;
