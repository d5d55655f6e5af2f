//! 3×3 convolutions at stride 1 by Winograd's method, which needs fewer multiplications than the direct one: four times fewer with tiles of
//! 4×4 outputs, 2.25 times fewer with 2×2 where the images are small.
//!
//! Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks". Images are cut into tiles, and each tile is transformed:
//! `[tile][place][channels]`. One matrix product for each place of a tile gives `[place][tile][channels]`, from which the outputs are
//! transformed back.

mod filter;
mod forward;
mod gradient;
mod grid;
mod product;
mod scheme;
mod tiling;
mod transform;

pub(super) use scheme::{F2x3, F4x3};
pub(super) use tiling::Tiling;
pub(crate) use tiling::outputs_of_tile;
