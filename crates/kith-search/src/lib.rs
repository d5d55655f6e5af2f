#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod graph;
mod index;
mod nearest;
mod principal;
mod product;
mod progress;
mod projection;
mod table;

pub use graph::{Graph, Input};
pub use index::Index;
pub use nearest::{Hit, Key};
pub use progress::Progress;
pub use projection::{Place, ProjectionInput};
