//! Numbers about embeddings: retrieval and geometry. Plain `f32` slices in, numbers out.
//! Must never know: where vectors come from.

mod geometry;
mod retrieval;
mod spectrum;

pub use geometry::{Geometry, PAIRWISE_ROWS, geometry, spread};
pub use retrieval::{Retrieval, retrieval};
