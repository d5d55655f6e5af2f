//! Encodes images: it keeps the live checkpoint's encoder in memory, follows the database row that says which checkpoint is live, and
//! batches the images of all requests.

mod admission;
mod answer;
mod batcher;
mod behind;
mod cache;
mod canary;
mod config;
mod decode;
mod handle;
mod instruments;
mod live;
mod loaded;
mod neighbours;
mod pinned;
pub mod quantize;
mod queue;
mod trial;
mod wait_estimate;

pub use admission::Admission;
pub use answer::{Embedded, ModelInfo, Priority, Row, ServeError, Which};
pub use canary::Comparison;
pub use config::ServeConfig;
pub use handle::{Serving, Stores};
