//! The encoder's arithmetic on a CPU: plain slices in, plain slices out, vectorised for the processor it runs on.
//! Must never know: tensors, weights' names, optimisers.
//!
//! Images lie as `[batch, height, width, channels]`, convolution weights as `[kernel, kernel, in, out]`. Work is
//! spread over the rayon pool of the caller. Every sum is taken in an order that depends on shapes alone, so a
//! result is the same, bit for bit, for any number of threads; and an image's outputs do not depend on the others
//! in its batch.

mod conv;
mod direct;
mod matrix;
mod pages;
mod pointwise;
mod pool;
mod prefetch;
pub(super) mod scratch;
mod stem;
mod tile;
mod weights;
mod winograd;
mod winograd_filter;
mod winograd_gradient;
mod winograd_scheme;
mod winograd_tiles;

#[cfg(test)]
pub(super) use self::{
    pool::{MapRows, pool_row, pool_row_gradient, pooled_side},
    winograd::outputs_of_tile,
};
pub(super) use conv::{Conv, Finish, Images};
pub(super) use direct::Target;
pub use matrix::{product, product_with_transposed, transposed_product};
#[cfg(any(test, feature = "cuda"))]
pub(super) use pointwise::EPSILON;
pub(super) use pointwise::{
    add, mask, mean, mean_gradient, normalize, normalize_gradient, sum_rows, sum_squares,
};
pub(super) use stem::Stem;
pub(super) use weights::{Packed, Panels};
