//! The encoder's arithmetic on a CPU: plain slices in, plain slices out, vectorised for the processor it runs on.
//! Must never know: tensors, weights' names, optimisers.
//!
//! Images lie as `[batch, height, width, channels]`, convolution weights as `[kernel, kernel, in, out]`. Work is
//! spread over the rayon pool of the caller. Every sum is taken in an order that depends on shapes alone, so a
//! result is the same, bit for bit, for any number of threads; and an image's outputs do not depend on the others
//! in its batch.

mod conv;
mod conv_gradient;
mod image;
mod pointwise;
mod pool;
mod scratch;
mod tile;
mod winograd;
mod winograd_filter;
mod winograd_gradient;
mod winograd_scheme;

pub(super) use conv::{Conv, Finish, Images};
pub(super) use conv_gradient::Target;
pub(super) use pointwise::{
    EPSILON, add, mask, mean, mean_gradient, normalize, normalize_gradient, sum_rows, sum_squares,
};
pub(super) use pool::{max_pool, max_pool_gradient, pooled_side};
#[cfg(test)]
pub(super) use winograd::outputs_of_tile;
