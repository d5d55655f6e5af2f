//! The live encoder and the batcher: image bytes in, vectors out.
//! Must never know: training. It follows the database row that says which checkpoint is live. Only room that uses `arc-swap`.

mod answer;
mod batcher;
mod config;
mod decode;
mod handle;
mod live;
mod loaded;
mod pinned;
mod queue;

pub use answer::{Embedded, ModelInfo, Row, ServeError, Which};
pub use config::ServeConfig;
pub use handle::{Admission, Serving};
